"""Step 3 against the straightforward way: wall time and peak memory, in separate processes.

    python benchmarks/step3.py [--repeats N]

The straightforward way builds three torchvision networks, loads a file into each, loops over the
parameters and draws with pyplot. Both read the same three ResNet-50 files of random values; runs
are interleaved, medians printed.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WRITE = """
import sys, torch, torchvision
for name in sys.argv[1:]:
    torch.manual_seed(len(name) + ord(name[-5]))
    torch.save(torchvision.models.resnet50().state_dict(), name)
"""

STRAIGHTFORWARD = """
import sys, torch, torchvision
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
models = []
for name in sys.argv[1:4]:
    model = torchvision.models.resnet50()
    model.load_state_dict(torch.load(name, map_location="cpu"))
    models.append(dict(model.named_parameters()))
r, a, b = models
blocks = ["conv1"] + [f"layer{s + 1}.{i}" for s, n in enumerate((3, 4, 6, 3)) for i in range(n)]
values = []
with torch.no_grad():
    for block in blocks:
        keys = [k for k in r if (k == "conv1.weight" if block == "conv1" else
                k.startswith(block + ".conv") and k.endswith("weight"))]
        r_b = sum((r[k] - b[k]).abs().mean().item() for k in keys) / len(keys)
        a_b = sum((a[k] - b[k]).abs().mean().item() for k in keys) / len(keys)
        values.append(r_b / a_b)
print([round(v, 2) for v in values] + [1.0], sum(values) / len(values))
plt.figure(figsize=(5, 3.2))
plt.plot(range(1, len(values) + 2), values + [1.0], "o-")
plt.savefig(sys.argv[4], dpi=150)
"""


def measure(command: list[str]) -> tuple[float, float]:
    """Wall time in seconds and peak resident memory in MiB of one process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"failed: {command}")
    return seconds, usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{name}.pth" for name in "rab"]
        subprocess.run([sys.executable, "-c", WRITE, *files], check=True)
        plot = f"{folder}/plot.png"
        step3 = [sys.executable, str(ROOT / "cal_transferability.py")]
        step3 += ["-r", files[0], "-a", files[1]]
        without_plot = [*step3, "--no_plot", "-b"]
        step3 += ["--plot", plot, "-b"]
        # Copies: step 3 would take links to one file as that file.
        many = [f"{folder}/b{i}.pth" for i in range(20)]
        for name in many:
            shutil.copyfile(files[2], name)
        out = subprocess.run([*without_plot, *many], check=True, capture_output=True, text=True)
        if out.stdout.count("\nTransferability: ") != len(many):
            sys.exit(f"not all of {len(many)} files were measured")
        commands = {
            "straightforward": [sys.executable, "-c", STRAIGHTFORWARD, *files, plot],
            "step 3": [*step3, files[2]],
            "step 3, 20 files, no plot": [*without_plot, *many],
            "import torch": [sys.executable, "-c", "import torch"],
        }
        found = {name: [] for name in commands}
        for _ in range(repeats + 1):
            for name, command in commands.items():
                found[name].append(measure(command))
    # The first round warms the page cache.
    base = [statistics.median(column) for column in zip(*found["straightforward"][1:], strict=True)]
    print("| process | wall time, s | ratio | peak memory, MiB | ratio |\n|---|---|---|---|---|")
    for name, values in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*values[1:], strict=True))
        ratios = f"{seconds / base[0]:.2f} | {memory:.0f} | {memory / base[1]:.2f}"
        print(f"| {name} | {seconds:.2f} | {ratios} |")


if __name__ == "__main__":
    main()
