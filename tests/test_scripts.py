"""The two training scripts, and the three in sequence, on images drawn for the test."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import count
from pathlib import Path

import drawn_images
import pytest
import torch
from loops import read_csv

import cal_transferability
import evaluate
import findings.shuffle
import finetune
import pretrain_on_ImageNet
from console import run
from models import build, paths
from safe_io import locked, sha256
from training.record import COLUMNS

ROOT = Path(__file__).resolve().parent.parent
SMALL = ("--arch", "resnet50_w8", "--image_size", "32", "--num_workers", "0")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folders task_a (gratings) and task_b (shapes) of a few classes."""
    folder = tmp_path_factory.mktemp("images")
    for task, name in (("gratings", "task_a"), ("shapes", "task_b")):
        drawn_images.draw(folder / name, task=task, classes=4, train_per_class=60, val_per_class=15)
    return folder


def call(module, *options):
    """Exit code of a script's main, in this process."""
    return run(lambda: module.main([str(option) for option in options]))


def call_with(module, options, settings):
    return call(module, *(item for pair in settings.items() for item in pair), *SMALL, *options)


def pretrain(images, out, *options, **changes):
    settings = {"--data_dir": images / "task_a", "--max_epoch": 1, "--batch_size": 60}
    settings |= {"-r": out / "r.pth", "-a": out / "a.pth", **changes}
    return call_with(pretrain_on_ImageNet, options, settings)


def tune(images, trained, out, *options, **changes):
    settings = {"--dataset": "Folder", "--data_dir": images / "task_b", "--max_epoch": 1}
    settings |= {"--batch_size": 60, "-a": trained / "a.pth", "-b": out / "b.pth", **changes}
    return call_with(finetune, options, settings)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """theta_r, theta_A, theta_FB of one run of steps 1 and 2, and what they printed."""
    out = tmp_path_factory.mktemp("trained")
    optimisation = {"--batch_size": 20, "--lr": 0.05, "--scheduler": "cosine"}
    for step, name in (
        (lambda: pretrain(images, out, **{"--max_epoch": 2, **optimisation}), "pretrain.log"),
        (lambda: tune(images, out, out, **{"--max_epoch": 3, "--batch_size": 20}), "finetune.log"),
    ):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = step()
        (out / name).write_text(printed.getvalue())
        assert code == 0, printed.getvalue()
    return out


def outputs(folder):
    """Names of the files in a folder but for locks, which stay."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_three_steps_in_sequence_train_and_measure(trained, capsys):
    files = {"-r": trained / "r.pth", "-a": trained / "a.pth", "-b": trained / "b.pth"}
    options = [item for pair in files.items() for item in pair]
    assert call(cal_transferability, *options, "--json", trained / "t.json") == 0
    out = capsys.readouterr().out
    values = json.loads(re.search(r"transferability:  (\[.*\])", out)[1])
    assert len(values) == 18
    assert values[-1] == 1.0
    assert min(values) > 0
    assert "(mean over 17 layers; the classifier is new and left out)" in out
    assert "Fine-tuning: 36 steps in 3 epochs, best epoch kept" in out
    assert (trained / "b_transferability.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((trained / "t.json").read_text())["arch"] == "resnet50_w8"


def test_theta_r_is_the_fresh_network_and_theta_a_differs(trained):
    r, a = torch.load(trained / "r.pth"), torch.load(trained / "a.pth")
    torch.manual_seed(0)
    fresh = build("resnet50_w8", 4).state_dict()
    assert list(r) == list(fresh)
    assert all(torch.equal(r[key], fresh[key]) for key in fresh)
    assert not torch.equal(r["conv1.weight"], a["conv1.weight"])
    assert all(value.is_contiguous() for value in a.values())
    build("resnet50_w8", 4).load_state_dict(a)


def test_record_has_exactly_the_documented_keys(trained):
    record = json.loads((trained / "b.json").read_text())
    assert set(record) == set(
        "script args arch classes train_images val_images unreadable epochs steps sum_lr kept "
        "kept_epoch best_epoch best_val_acc last_val_acc val_acc train_loss seed sha256 "
        "parent_sha256 versions device seconds finished processes last_batch code date "
        "images".split()
    )
    assert record["images"].keys() == {"folder", "files", "times"}
    assert record["classes"] == ["bar", "cross", "diamond", "disc"]
    assert (record["train_images"], record["val_images"], record["unreadable"]) == (240, 60, 0)
    assert (record["epochs"], record["steps"], record["finished"]) == (3, 36, True)
    assert record["parent_sha256"] == sha256(trained / "a.pth")
    assert record["sha256"] == sha256(trained / "b.pth")
    a = json.loads((trained / "a.json").read_text())
    assert a["parent_sha256"] == sha256(trained / "r.pth")
    assert tuple(read_csv(trained / "b.pth")[0]) == COLUMNS
    assert 0 <= record["val_acc"] <= 100


def test_log_in_a_file_has_a_line_per_epoch_and_no_carriage_return(trained):
    log = (trained / "pretrain.log").read_text()
    assert "\r" not in log
    first, *epochs, theta_r, theta_a = log.splitlines()
    counts = r".* on .*: 240 training and 60 validation images of 4 classes, 12 steps an epoch"
    assert re.fullmatch(counts, first)
    assert [line[:10] for line in epochs] == ["epoch 1/2 ", "epoch 2/2 "]
    assert theta_r == f"theta_r: {trained / 'r.pth'}"
    assert theta_a == f"theta_A: {trained / 'a.pth'}"
    log = (trained / "finetune.log").read_text()
    assert "all tensors loaded but fc.weight, fc.bias (new: 4 classes)" in log
    assert log.isascii()


def test_same_seed_gives_the_same_file_whatever_the_workers(images, tmp_path):
    sums = []
    for name, workers in (("one", 0), ("two", 2)):
        (tmp_path / name).mkdir()
        assert pretrain(images, tmp_path / name, "--num_workers", workers) == 0
        sums.append(sha256(tmp_path / name / "a.pth"))
    assert sums[0] == sums[1]
    assert pretrain(images, tmp_path / "one", "--seed", 1, "--overwrite") == 0
    assert sha256(tmp_path / "one" / "a.pth") != sums[0]


def test_no_epochs_writes_only_theta_r_and_needs_no_data(tmp_path):
    r = tmp_path / "r.pth"
    options = ("--max_epoch", 0, "--arch", "resnet18", "-r", r, "-a", tmp_path / "a.pth")
    (tmp_path / "a.resume").touch()  # an unfinished run of -a is no obstacle
    assert call(pretrain_on_ImageNet, *options) == 0
    torch.manual_seed(0)
    assert torch.equal(torch.load(r)["fc.weight"], build("resnet18", 1000).fc.weight)
    assert outputs(tmp_path) == ["a.resume", "r.pth"]


def test_defaults_are_those_of_the_original():
    args = vars(pretrain_on_ImageNet.parse_args(["--data_dir", "x"]))
    defaults = {"arch": "resnet50", "seed": 0, "max_epoch": 120, "batch_size": 256, "lr": 0.1}
    defaults |= {"weight_decay": 1e-4, "r": "random_init_model.pth", "a": "ImageNet_model.pth"}
    defaults |= {"scheduler": "step", "image_size": 224, "keep": "best", "optimizer": "sgd"}
    defaults |= {"val_interval": 1, "warmup_epochs": 0, "max_steps": None}
    assert {key: args[key] for key in defaults} == defaults
    args = vars(finetune.parse_args(["--data_dir", "x"]))
    defaults = {"dataset": "CIFAR-10", "seed": 0, "max_epoch": 100, "batch_size": 128, "lr": 0.01}
    defaults |= {"weight_decay": 1e-4, "scheduler": "cosine", "keep": "best", "accumulate": 1}
    assert {key: args[key] for key in defaults} == defaults


def test_bare_names_are_in_ckpt(images, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CKPT_DIR", tmp_path / "ckpt")
    assert pretrain(images, tmp_path, **{"-r": "my_r.pth", "-a": "my_a.pth"}) == 0
    assert outputs(tmp_path / "ckpt") == ["my_a.csv", "my_a.json", "my_a.pth", "my_r.pth"]
    assert tune(images, tmp_path, tmp_path, **{"-a": "my_a.pth", "-b": "my_b.pth"}) == 0
    assert (tmp_path / "ckpt" / "my_b.json").exists()


def test_from_scratch_starts_at_theta_r(images, trained, tmp_path):
    assert tune(images, trained, tmp_path, **{"-a": trained / "r.pth"}) == 0
    parent = json.loads((tmp_path / "b.json").read_text())["parent_sha256"]
    assert parent == sha256(trained / "r.pth")


def test_frozen_parameters_stay(images, trained, tmp_path, capsys):
    assert tune(images, trained, tmp_path, "--freeze", "layer[12].*") == 0
    assert "frozen: " in capsys.readouterr().out
    a, b = torch.load(trained / "a.pth"), torch.load(tmp_path / "b.pth")
    assert torch.equal(a["layer2.3.conv3.weight"], b["layer2.3.conv3.weight"])
    assert not torch.equal(a["layer3.0.conv1.weight"], b["layer3.0.conv1.weight"])


def test_deterministic_algorithms_change_no_meaning(images, trained, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the option leaves it set
    finals = []
    try:
        for name, options in (("plain", ()), ("other", ("--deterministic",))):
            changes = {"--max_steps": 3, "--batch_size": 20, "-b": tmp_path / f"{name}.pth"}
            assert tune(images, trained, tmp_path, *options, **changes) == 0
            finals.append(torch.load(tmp_path / f"{name}.pth"))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    for key, value in finals[0].items():
        assert torch.allclose(value, finals[1][key], atol=1e-3), key


@pytest.mark.parametrize(
    ("module", "command"),
    [
        (pretrain_on_ImageNet, "python pretrain_on_ImageNet.py --seed 0 --data_dir DIR"),
        (finetune, "python finetune.py --dataset CIFAR-10 --data_dir DIR"),
        (cal_transferability, "python cal_transferability.py -r random_init_model.pth"),
    ],
)
def test_help_prints_the_published_command(module, command, capsys):
    with pytest.raises(SystemExit):
        module.parse_args(["--help"])
    text = capsys.readouterr().out
    lines = text[text.index(command) :].split("\n\n")[0].splitlines()
    # As a shell reads it: every line but the last is continued.
    assert [line.endswith(" \\") for line in lines] == [True] * (len(lines) - 1) + [False]
    assert text.isascii()


@pytest.mark.parametrize("module", [pretrain_on_ImageNet, finetune])
def test_help_has_four_groups_and_says_what_happens_without_an_option(module, capsys):
    with pytest.raises(SystemExit):
        module.parse_args(["--help"])
    text = capsys.readouterr().out
    places = [text.index(f"\n{name}:\n") for name in "task optimisation machine output".split()]
    assert places == sorted(places)
    assert not re.search("default: (False|None)", text)
    said = [" ".join(part.split()) for part in re.split(r"\n  (?=-)", text)]
    silent = {part.split()[0] for part in said if "(default: " not in part}
    assert silent <= {"usage:", "-h,", "--data_dir"}, silent


def test_help_of_a_script_as_a_stranger_calls_it():
    command = [sys.executable, str(ROOT / "pretrain_on_ImageNet.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: pretrain_on_ImageNet.py ")


def test_intervals_parts_and_warmup_reach_the_loop(images, trained, tmp_path, monkeypatch):
    parts, backward = [], torch.Tensor.backward
    monkeypatch.setattr(
        torch.Tensor, "backward", lambda *a, **k: parts.append(1) or backward(*a, **k)
    )
    options = ("--accumulate", 3, "--val_interval", 2, "--warmup_epochs", 2)
    options += ("--max_epoch", 3, "--scheduler", "constant")
    assert tune(images, trained, tmp_path, *options) == 0
    assert len(parts) == 3 * 12
    rows = read_csv(tmp_path / "b.pth")
    assert [float(row["lr"]) for row in rows] == pytest.approx([0.005, 0.01, 0.01])
    assert [row["val_acc"] != "" for row in rows] == [False, True, True]


def test_other_optimiser_schedule_and_steps(images, trained, tmp_path):
    options = ("--optimizer", "adamw", "--scheduler", "constant", "--max_steps", 3)
    assert tune(images, trained, tmp_path, *options, "--keep", "both", "--amp", "bf16") == 0
    record = json.loads((tmp_path / "b.json").read_text())
    assert (record["steps"], record["epochs"], record["kept"]) == (3, 1, "best")
    assert record["sum_lr"] == pytest.approx(0.03)
    assert json.loads((tmp_path / "b_last.json").read_text())["kept"] == "last"
    assert torch.load(tmp_path / "b.pth")["conv1.weight"].dtype == torch.float32


def assert_refused(code, capsys, message):
    err = capsys.readouterr().err
    assert code == 2
    assert re.search(message, err), err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("error: ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch_size", "0"), "--batch_size: must be a whole number of at least 1, not '0'"),
        (("--batch_size", "1"), "a batch of 1 is less than two images"),
        (("--max_epoch", "-1"), "--max_epoch: must be a whole number of at least 0"),
        (("--lr", "0"), "--lr: must be a number above 0, not '0'"),
        (("--lr", "nan"), "--lr: must be a number above 0, not 'nan'"),
        (("--lr", "1e999"), "--lr: must be a number above 0"),
        (("--weight_decay", "-0.1"), "--weight_decay: must be a number of at least 0"),
        (("--num_workers", "-1"), "--num_workers: must be a whole number of at least 0"),
        (("--max_steps", "0"), "--max_steps: must be a whole number of at least 1"),
        (("--arch", "resnet51"), "--arch: invalid choice: 'resnet51'"),
        (("--device", "cuda:77"), "--device cuda:77 cannot be used here"),
        (("--data_dir", "/nowhere"), r"no ImageNet in /nowhere \(does not exist\); expected there"),
        (("-a", "/nowhere/a.pth"), "the folder /nowhere does not exist; create it first"),
        (("--no_such_option",), "unrecognized arguments: --no_such_option"),
    ],
)
def test_wrong_option_of_pretraining_is_one_line(images, tmp_path, capsys, options, message):
    assert_refused(pretrain(images, tmp_path, *options), capsys, message)
    assert not outputs(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "MNIST"), "unknown data set 'MNIST'; known: ImageNet, CIFAR-10"),
        (("--max_epoch", "0"), "--max_epoch: must be a whole number of at least 1"),
        (("--arch", "resnet50_w16"), r"a\.pth is a resnet50_w8, not a resnet50_w16; add --arch"),
        (("-a", "/nowhere/a.pth"), "checkpoint /nowhere/a.pth is missing"),
        (("-a", "/"), "/ is a folder; give a checkpoint file"),
        (("-b", "."), "it is a folder; give a file name"),
        (("--freeze", "nothing*"), "--freeze nothing.* matches no parameter"),
        (("--freeze", "*"), r"--freeze \* matches every parameter"),
    ],
)
def test_wrong_option_of_fine_tuning_is_one_line(
    images, trained, tmp_path, capsys, options, message
):
    assert_refused(tune(images, trained, tmp_path, *options), capsys, message)
    assert not outputs(tmp_path)


def test_evaluation_gives_the_recorded_accuracy(images, trained, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "0")  # one that something else has left is not torchrun's
    record = json.loads((trained / "b.json").read_text())
    task = ("--dataset", "Folder", "--data_dir", images / "task_b", "--image_size", 32)
    task += ("--num_workers", 0, "-b", trained / "b.pth")
    assert call(evaluate, *task) == 0
    out = capsys.readouterr().out
    assert f"accuracy {record['val_acc']:.2f} % of {record['val_images']} images, loss" in out

    assert call(evaluate, *task, "--split", "train", "--max_samples", 40) == 0
    assert "% of 40 images" in capsys.readouterr().out
    code = call(evaluate, *task, "--max_classes", 2)
    assert_refused(code, capsys, "b.pth has a classifier of 4 classes, but Folder in")
    assert_refused(call(evaluate, *task, "--arch", "resnet18"), capsys, "is a resnet50_w8, not a")


def interrupt_at(patch, step):
    """Have SIGTERM come in optimiser step number `step` from now on."""
    numbers, original = count(1), torch.optim.SGD.step

    def interrupted(self, *args):
        if next(numbers) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *args)

    patch.setattr(torch.optim.SGD, "step", interrupted)


def test_transferability_along_the_way_is_that_of_step_3(images, trained, tmp_path, monkeypatch):
    options = ("-r", trained / "r.pth", "--keep", "both", "--max_epoch", 2)
    assert tune(images, trained, tmp_path, *options) == 0
    measured = tmp_path / "t.json"
    files = ("-r", trained / "r.pth", "-a", trained / "a.pth", "-b", tmp_path / "b_last.pth")
    assert call(cal_transferability, *files, "--json", measured, "--no_plot") == 0
    (result,) = json.loads(measured.read_text())["results"]
    rows, layers = read_csv(tmp_path / "b.pth"), read_csv(tmp_path / "b.pth", "_layers.csv")
    assert list(rows[0]) == [*COLUMNS, "transferability"]
    assert float(rows[-1]["transferability"]) == result["transferability"]
    assert len(layers) == 2 * 18
    for row, layer in zip(layers[-18:], result["layers"], strict=True):
        assert (row["epoch"], row["step"], row["layer"]) == ("2", rows[1]["step"], layer["name"])
        assert float(row["transferability"]) == layer["transferability"]
        assert row["distance_a_b"] == str(layer["distance_a_b"] or "")

    # Interrupted in the second epoch, after the first has been measured.
    parts = tmp_path / "parts"
    parts.mkdir()
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        assert tune(images, trained, parts, *options) == 128 + signal.SIGTERM
    assert tune(images, trained, parts, *options[2:], "--resume") == 2  # without -r
    assert tune(images, trained, parts, *options, "--resume") == 0
    tables = [folder / "b_layers.csv" for folder in (tmp_path, parts)]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_files_of_different_budgets_are_measured_with_a_warning(images, trained, tmp_path, capsys):
    for name, options in (("b", ()), ("b2", ()), ("b3", ("--lr", 0.02, "--keep", "last"))):
        assert tune(images, trained, tmp_path, *options, **{"-b": tmp_path / f"{name}.pth"}) == 0
    files = ("-r", trained / "r.pth", "-a", trained / "a.pth", "--no_plot", "-b")
    capsys.readouterr()
    assert call(cal_transferability, *files, tmp_path / "b.pth", tmp_path / "b2.pth") == 0
    assert capsys.readouterr().err == ""
    assert call(cal_transferability, *files, tmp_path / "b.pth", tmp_path / "b3.pth") == 0
    err = capsys.readouterr().err
    assert (
        "warning: the files differ in sum_lr (0.04, 0.08), kept (best, last): their T cannot" in err
    )
    assert len(err.splitlines()) == 1


def test_finished_run_is_not_taken_for_one_of_other_settings(images, trained, tmp_path, capsys):
    assert tune(images, trained, tmp_path) == 0
    before = sha256(tmp_path / "b.pth")
    assert tune(images, trained, tmp_path, "--resume", "--num_workers", 0) == 0
    assert "is finished; nothing to do" in capsys.readouterr().out
    for options, message in (
        (("--lr", 0.5), r"another lr \(0.01, now 0.5\)"),
        (("--max_samples", 100), r"another max_samples \(None, now 100\)"),
        (("-a", trained / "r.pth"), "b.pth is of a finished run with another parent_sha256"),
    ):
        assert_refused(tune(images, trained, tmp_path, "--resume", *options), capsys, message)
    assert sha256(tmp_path / "b.pth") == before


def test_theta_r_that_cannot_be_is_refused_or_warned_of(images, trained, tmp_path, capsys):
    code = tune(images, trained, tmp_path, "-r", trained / "a.pth")
    assert_refused(code, capsys, "hold the same; check -r")
    other = tmp_path / "r2.pth"
    command = ("--max_epoch", 0, "--arch", "resnet50_w8", "--seed", 5, "-r", other)
    assert call(pretrain_on_ImageNet, *command) == 0
    assert tune(images, trained, tmp_path, "-r", other) == 0
    assert "a.pth was not trained from" in capsys.readouterr().err


def test_options_that_the_script_lacks_are_not_advised(images, trained, tmp_path, capsys):
    """Of unknown tensors, and of several networks in a file; step 3 and evaluate.py have both."""
    theta = torch.load(trained / "a.pth")
    strange, two = tmp_path / "strange.pth", tmp_path / "two.pth"
    torch.save({**theta, "layer1.0.adapter.weight": torch.zeros(8, 8)}, strange)
    torch.save({f"{x}.{key}": value for x in ("one", "two") for key, value in theta.items()}, two)
    files = ("-a", trained / "a.pth", "-b", trained / "b.pth", "--no_plot")
    code = call(cal_transferability, "-r", strange, *files)
    assert_refused(code, capsys, "python -m models .*, and --ignore PATTERN leaves tensors out")
    assert tune(images, trained, tmp_path, "-r", strange) == 2
    error = capsys.readouterr().err
    assert "lists everything" in error
    assert "--ignore" not in error
    assert_refused(tune(images, trained, tmp_path, "-a", two), capsys, "of them with --subtree")
    code = call(findings.shuffle, "-a", two, "-o", tmp_path / "s.pth")
    assert_refused(code, capsys, "holds several networks: one, two; save one of them by itself")


@pytest.mark.parametrize(
    ("owner", "name", "error", "message"),
    [
        (
            *(torch.Tensor, "backward"),
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
            "has not enough memory for a batch; compute it in parts with --accumulate 2",
        ),
        (  # the network alone is too large
            *(torch.nn.Module, "to"),
            torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
            "the GPU has not enough memory",
        ),
        (  # VGG and AlexNet, on GPUs
            *(torch.Tensor, "backward"),
            RuntimeError(
                "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, "
                "but you set 'torch.use_deterministic_algorithms(True)'. You can turn off ..."
            ),
            "adaptive_avg_pool2d_backward_cuda has no .*; leave out --deterministic, or take",
        ),
        (  # as Inductor of torch 2.11 failed on a GPU, in the first backward pass
            *(torch, "compile"),
            AssertionError("expected size 128==128, stride 9==1 at dim=1\nError in op: ..."),
            r"torch.compile failed here \(AssertionError: expected .* at dim=1\); leave out",
        ),
    ],
)
def test_failure_of_a_device_is_one_line(
    images, trained, tmp_path, capsys, monkeypatch, owner, name, error, message
):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(owner, name, fail)
    options = ("--compile",) if name == "compile" else ()
    assert_refused(tune(images, trained, tmp_path, *options), capsys, message)


def test_theta_r_of_an_interrupted_run_is_not_replaced(images, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        assert pretrain(images, tmp_path, **{"--max_epoch": 2}) == 128 + signal.SIGTERM
    capsys.readouterr()
    before = sha256(tmp_path / "r.pth")
    code = pretrain(images, tmp_path, "--resume", **{"--max_epoch": 2, "--seed": 1})
    assert_refused(code, capsys, r"of a run with another seed \(0, now 1\)")
    assert sha256(tmp_path / "r.pth") == before
    (tmp_path / "r.pth").write_bytes(b"another")
    code = pretrain(images, tmp_path, "--resume", **{"--max_epoch": 2})
    assert_refused(code, capsys, "of a run with another parent_sha256")
    (tmp_path / "r.pth").unlink()  # then it is written again
    assert pretrain(images, tmp_path, "--resume", **{"--max_epoch": 2}) == 0
    assert sha256(tmp_path / "r.pth") == before


def test_another_theta_r_is_replaced_only_if_asked_for(tmp_path, capsys):
    r = tmp_path / "r.pth"
    command = ("--max_epoch", 0, "--arch", "resnet50_w8", "-r", r)
    assert call(pretrain_on_ImageNet, *command) == 0
    torch.save(dict(torch.load(r)), r, _use_new_zipfile_serialization=False)
    before = r.read_bytes()
    assert call(pretrain_on_ImageNet, *command) == 0  # the same parameters in other bytes stay
    assert r.read_bytes() == before
    for other in (("--seed", 1), ("--arch", "resnet18"), ("--resume", "--seed", 1)):
        code = call(pretrain_on_ImageNet, *command, *other)
        assert_refused(code, capsys, "r.pth holds other parameters .* name, or add --overwrite")
        assert r.read_bytes() == before
    assert call(pretrain_on_ImageNet, *command, "--seed", 1, "--overwrite") == 0
    assert "r.pth held other parameters" in capsys.readouterr().out
    r.write_bytes(b"something else")
    assert_refused(call(pretrain_on_ImageNet, *command), capsys, "r.pth holds other parameters")


def test_second_pretraining_leaves_theta_r_and_theta_a_of_the_first(images, tmp_path, capsys):
    assert pretrain(images, tmp_path, "--max_steps", 1) == 0
    before = {file.name: sha256(file) for file in tmp_path.iterdir() if file.suffix != ".lock"}
    other = ("--max_steps", 1, "--seed", 1)
    for extra in ((), ("--resume",)):
        code = pretrain(images, tmp_path, *other, *extra)
        assert_refused(code, capsys, "a.pth (exists|is of a finished run with another seed)")
    code = pretrain(images, tmp_path, *other, **{"-a": tmp_path / "other.pth"})
    assert_refused(code, capsys, "r.pth holds other parameters")
    assert {f.name: sha256(f) for f in tmp_path.iterdir() if f.suffix != ".lock"} == before
    # Another theta_A of the same theta_r is a legitimate run.
    assert pretrain(images, tmp_path, "--max_steps", 2, **{"-a": tmp_path / "other.pth"}) == 0
    assert sha256(tmp_path / "r.pth") == before["r.pth"]


@pytest.mark.slow
def test_of_two_pretrainings_at_once_only_one_writes_theta_r(tmp_path):
    command = [sys.executable, ROOT / "pretrain_on_ImageNet.py", "--max_epoch", "0"]
    command += ["--arch", "resnet50_w8", "-r", tmp_path / "r.pth", "--seed"]
    runs = [
        subprocess.Popen([*map(str, command), seed], stderr=subprocess.PIPE, text=True)
        for seed in "12"
    ]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    first = [run.returncode for run in runs].index(0)
    assert runs[1 - first].returncode == 2
    assert "r.pth holds other parameters" in errors[1 - first]
    torch.manual_seed(first + 1)
    fresh = build("resnet50_w8", 1000).state_dict()
    assert torch.equal(torch.load(tmp_path / "r.pth")["conv1.weight"], fresh["conv1.weight"])


def test_finished_run_is_compared_with_the_data_and_the_parent(images, tmp_path, capsys):
    """Whatever folder they are in."""
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(images, data)
    out.mkdir()
    assert pretrain(images, out, "--max_steps", 1) == 0
    before = sha256(out / "a.pth")

    def again(folder, *options):
        capsys.readouterr()
        code = pretrain(folder, out, "--max_steps", 1, "--resume", *options)
        assert sha256(out / "a.pth") == before
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    for folder in (images, data):  # the same, and a copy of it
        code, printed, error = again(folder)
        assert (code, error) == (0, "")
        assert printed.endswith(f"{out / 'a.pth'} is finished; nothing to do\n")
    (out / "r.pth").unlink()
    assert again(data)[0] == 0
    assert (out / "r.pth").exists()  # it is written again

    some = sorted(data.glob("task_a/train/*/*"))[0]
    some.write_bytes(some.read_bytes() + b" ")
    code, printed, error = again(data)
    assert (code, "is finished; nothing to do" in printed) == (0, True)
    assert "the images that " in error
    assert "their names, sizes or labels differ" in error
    some.unlink()
    code, _, error = again(data)
    assert code == 2
    assert "another train_images (240, now 239)" in error
    some.parent.rename(some.parent.with_name("zebra"))
    for folder in data.glob("task_a/val/*"):
        if folder.name == some.parent.name:
            folder.rename(folder.with_name("zebra"))
    code, _, error = again(data)
    assert code == 2
    assert "another list of classes" in error
    assert again(tmp_path / "nowhere")[0] == 2


def test_images_written_again_before_a_run_is_resumed_are_said(
    images, tmp_path, capsys, monkeypatch
):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 3)
        assert pretrain(data, tmp_path) == 128 + signal.SIGTERM
    os.utime(sorted(data.glob("task_a/train/*/*"))[0], (1, 1))
    capsys.readouterr()
    assert pretrain(data, tmp_path, "--resume") == 0
    captured = capsys.readouterr()
    assert "resuming in epoch 1, after iteration 3" in captured.out
    assert "have been written again since: their times differ" in captured.err


@pytest.mark.parametrize("finished", [True, False])
def test_overwrite_wins_over_resume(images, tmp_path, capsys, monkeypatch, finished):
    with monkeypatch.context() as patch:
        if not finished:
            interrupt_at(patch, 3)
        assert pretrain(images, tmp_path) == (0 if finished else 128 + signal.SIGTERM)
    both = ("--resume", "--overwrite")
    # A command that cannot be carried out costs nothing.
    before = {f.name: sha256(f) for f in tmp_path.iterdir() if f.suffix != ".lock"}
    assert pretrain(tmp_path / "nowhere", tmp_path, *both) == 2
    assert {f.name: sha256(f) for f in tmp_path.iterdir() if f.suffix != ".lock"} == before
    capsys.readouterr()
    assert pretrain(images, tmp_path, *both, "--seed", 1) == 0
    printed = capsys.readouterr().out
    assert "resuming" not in printed
    assert "epoch 1/1  step 4" in printed
    assert outputs(tmp_path) == ["a.csv", "a.json", "a.pth", "r.pth"]
    (tmp_path / "fresh").mkdir()
    assert pretrain(images, tmp_path / "fresh", "--seed", 1) == 0
    assert sha256(tmp_path / "a.pth") == sha256(tmp_path / "fresh" / "a.pth")


def test_input_is_never_overwritten(images, trained, tmp_path, capsys):
    before = sha256(trained / "a.pth")
    code = tune(images, trained, tmp_path, **{"-b": trained / ".." / trained.name / "a.pth"})
    assert_refused(code, capsys, "which is given as -a")
    assert sha256(trained / "a.pth") == before
    code = pretrain(images, tmp_path, **{"-a": tmp_path / "r.pth"})
    assert_refused(code, capsys, "r.pth, which is given as -r")

    # With --keep both X_last.pth is an output, too.
    a = tmp_path / "b_last.pth"
    a.write_bytes((trained / "a.pth").read_bytes())
    code = tune(images, trained, tmp_path, "--keep", "both", **{"-a": a})
    assert_refused(code, capsys, "b_last.pth, which is given as -a")
    assert sha256(a) == before
    code = pretrain(images, tmp_path, "--keep", "both", **{"-r": tmp_path / "a_last.pth"})
    assert_refused(code, capsys, "a_last.pth, which is given as -r")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"just text", None])
def test_damaged_theta_a_is_one_line_and_writes_nothing(images, trained, tmp_path, capsys, content):
    bad = tmp_path / "in" / "bad.pth"
    bad.parent.mkdir()
    bad.write_bytes((trained / "a.pth").read_bytes()[:-999] if content is None else content)
    out = tmp_path / "out"
    out.mkdir()
    assert_refused(tune(images, trained, out, **{"-a": bad}), capsys, "bad.pth")
    assert not list(out.iterdir())


def test_failed_run_leaves_the_file_of_an_earlier_one(images, trained, tmp_path, capsys):
    (tmp_path / "b.pth").write_bytes(b"earlier")
    options = ("--lr", "1e30", "--max_epoch", "3")
    assert_refused(tune(images, trained, tmp_path, *options), capsys, "b.pth exists already; give")
    assert tune(images, trained, tmp_path, *options, "--overwrite") == 2
    captured = capsys.readouterr()
    assert "exists; it is replaced when the first epoch to keep is complete" in captured.out
    assert "the loss is not finite since epoch" in captured.err
    assert (tmp_path / "b.pth").read_bytes() == b"earlier"
    with locked(tmp_path / "b.pth"):
        pass
