"""Kill runs at random moments, resume them, and compare with runs that were left alone.

    python benchmarks/kill_loop.py [--kills N] [--seed S] [--arch A] [--deterministic]

pretrain_on_ImageNet.py and finetune.py train a network with dropout on drawn images. kill -9 falls
at the start, in the middle of a run, or during a save (--save_minutes 0: after every iteration).
The run is resumed with another --num_workers and killed again, N times for each script. At the end
every tensor, theta_r too, must be bit for bit that of the run left alone, and so must the numbers
in CSV and JSON. Prints a line per kill; exit code 1 on a difference. On a GPU two runs are only the
same with --deterministic.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import drawn_images

ROOT = Path(__file__).resolve().parent.parent
SMALL = "--image_size 32 --batch_size 8 --max_epoch 30 --keep both --lr 0.01".split()


def start(command: list[str], workers: int) -> subprocess.Popen:
    # A session of its own, to kill the workers with it, as a scheduler does.
    return subprocess.Popen(
        [*command, "--num_workers", str(workers), "--log_interval", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_at(process: subprocess.Popen, moment: str, folder: Path, rng: random.Random) -> str:
    """Kill the process at `moment`; return where it was, "" if it had finished before."""
    place = "before the first iteration"
    if moment == "start":
        time.sleep(rng.uniform(0, 5))
    else:
        wanted = rng.randint(1, 20)
        for line in process.stdout:
            if "iteration" in line and line.startswith("epoch"):
                place = line.split(":")[0]
                wanted -= 1
            if wanted == 0:
                break
        if moment == "save":
            # A temporary file is there while something is being written.
            pattern = rng.choice((".*.resume.*.tmp", ".*.pth.*.tmp"))
            deadline = time.monotonic() + 5
            while process.poll() is None and time.monotonic() < deadline:
                saving = next(folder.glob(pattern), None)
                if saving is not None:
                    place += f", writing {saving.name.split('.', 1)[1].rsplit('.', 2)[0]}"
                    break
        else:
            time.sleep(rng.uniform(0, 0.2))
    finished = process.poll() is not None
    if not finished:
        os.killpg(process.pid, signal.SIGKILL)
    out, _ = process.communicate()
    if finished:
        if process.returncode != 0:
            sys.exit(f"failed with exit code {process.returncode}: {out}")
        return ""
    lines = [line for line in out.splitlines() if "iteration" in line and "epoch" in line]
    return lines[-1].split(":")[0] if lines and moment == "start" else place


def run_with_kills(command: list[str], folder: Path, kills: int, rng: random.Random) -> int:
    """Kill and resume a run `kills` times, then let it finish. Returns the number of kills."""
    done = 0
    for number in range(kills):
        moment = ("start", "middle", "save")[number % 3]
        # Each time another number, and in time every number with every moment.
        workers = (number + number // 3) % 3
        often = ["--save_minutes", "0" if moment == "save" or rng.random() < 0.5 else "10"]
        process = start([*command, "--resume", *often], workers)
        where = kill_at(process, moment, folder, rng)
        if not where:
            print("  finished before the next kill")
            return done
        done += 1
        print(f"  kill {done} ({moment}, {workers} workers): {where}", flush=True)
    process = start([*command, "--resume"], (workers + 1) % 3)
    out, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"failed with exit code {process.returncode}: {out}")
    return done


def differences(ours: Path, straight: Path) -> list[str]:
    """Files and tensors that differ between two output folders; locks and times are left out."""
    different = []
    paths = [*ours.iterdir(), *straight.iterdir()]
    names = {path.name for path in paths if path.suffix != ".lock"}
    for name in sorted(names):
        files = [folder / name for folder in (ours, straight)]
        if not all(file.exists() for file in files):
            different.append(f"{name} is in one folder only")
        elif name.endswith(".pth"):
            a, b = (torch.load(file) for file in files)
            if list(a) != list(b):
                different.append(f"{name}: other tensors")
            both = [key for key in a if key in b]
            different += [f"{name}: {key}" for key in both if not torch.equal(a[key], b[key])]
        elif comparable(files[0]) != comparable(files[1]):
            different.append(name)
    return different


def comparable(file: Path) -> list | dict:
    """Content of a CSV or JSON without what depends on the clock or the command line."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        content = json.loads(text)
        del content["seconds"], content["args"], content["date"]
        return content
    rows = list(csv.DictReader(text.splitlines()))
    for row in rows:
        del row["seconds"], row["images_per_s"]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="of each script")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arch", default="mobilenet_v3_small")
    parser.add_argument("--deterministic", action="store_true", help="passed on to the scripts")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    bad = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {"classes": 4, "train_per_class": 30, "val_per_class": 10}
        drawn_images.draw(folder / "task_a", task="gratings", **sizes)
        drawn_images.draw(folder / "task_b", task="shapes", **sizes)
        straight = folder / "straight"
        (straight / "1").mkdir(parents=True)
        (straight / "2").mkdir()
        for number, script in (("1", "pretrain_on_ImageNet.py"), ("2", "finetune.py")):
            print(script, flush=True)

            def command(out: Path, script: str = script) -> list[str]:
                if script == "finetune.py":
                    task = ["--dataset", "Folder", "--data_dir", folder / "task_b"]
                    task += ["-a", straight / "1" / "a.pth", "-b", out / "b.pth"]
                else:
                    task = ["--data_dir", folder / "task_a", "-r", out / "r.pth"]
                    task += ["-a", out / "a.pth"]
                line = [sys.executable, ROOT / script, "--arch", args.arch, *SMALL, *task]
                line += ["--deterministic"] if args.deterministic else []
                return [str(item) for item in line]

            done = subprocess.run(
                [*command(straight / number), "--num_workers", "0"],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                sys.exit(done.stderr)
            ours = folder / "killed" / number
            ours.mkdir(parents=True)
            kills = run_with_kills(command(ours), ours, args.kills, rng)
            different = differences(ours, straight / number)
            verdict = f"DIFFERENT: {', '.join(different)}" if different else "bit for bit the same"
            print(f"  {kills} kills: {verdict}", flush=True)
            bad += different
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
