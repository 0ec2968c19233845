"""The study of data against steps: runs of a plan, and what they say about b and c."""

import csv
import json
import math
import re
import sys

import drawn_images
import numpy as np
import pytest
import torch

import finetune
import pretrain_on_ImageNet
from console import run
from findings import depth
from findings import study as command
from findings.__main__ import main
from findings.plan import COLUMNS
from findings.slopes import summary
from findings.table import read_table
from models import checkpoint
from safe_io import locked, sha256

HEADER = ",".join(COLUMNS)
RESULT_HEADER = (
    "dataset,start,samples,classes,steps,batch_size,lr,weight_decay,seed,probe_loss,transferability"
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Images of task B, and theta_r and theta_A of a network that has taken a few steps."""
    folder = tmp_path_factory.mktemp("study")
    drawn_images.draw(folder / "a", classes=2, train_per_class=16, val_per_class=4)
    drawn_images.draw(folder / "b", task="shapes", classes=3, train_per_class=12, val_per_class=4)
    pretrain_on_ImageNet.main(
        [
            *("--data_dir", str(folder / "a"), "--arch", "resnet50_w8", "--image_size", "32"),
            *("--max_steps", "4", "--batch_size", "8", "--num_workers", "0", "--lr", "0.01"),
            *("-r", str(folder / "r.pth"), "-a", str(folder / "a.pth")),
        ]
    )
    return folder


def study(task, out, rows, *options, header=HEADER):
    """Exit code of the command on a plan of these rows."""
    out.mkdir(exist_ok=True)
    (out / "plan.csv").write_text("\n".join([header, *rows]) + "\n")
    words = [
        *("study", out / "plan.csv", "--data_dir", task / "b", "--arch", "resnet50_w8"),
        *("--image_size", 32, "-r", task / "r.pth", "-a", task / "a.pth", "--out", out),
        *("--num_workers", 0, "--probe", 6, *options),
    ]
    return run(lambda: main([str(word) for word in words]))


def read_results(out):
    with open(out / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


GRID = [f"Folder,theta_A,{n},,{s},6,1e-4,,0" for n in (12, 24) for s in (2, 3, 4)]


def test_plan_is_run_measured_and_fitted(task, tmp_path, capsys):
    assert study(task, tmp_path, [*GRID, "Folder,null,12,2,2,6,1e-4,0,1"]) == 0
    out = capsys.readouterr().out
    assert " 1 seeds; N 12, 24; S 2, 3, 4" in out
    rows = read_results(tmp_path)
    assert [row["steps"] for row in rows] == ["2", "3", "4", "2", "3", "4", "2"]
    first, null = rows[0], rows[-1]
    name = "Folder_theta_A_samples12_steps2_batch_size6_lr1e-4_seed0"
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["train_images"] == int(first["samples"]) == 12
    assert (record["steps"], record["kept"], record["parent_sha256"]) == (
        *(2, "last"),
        sha256(task / "a.pth"),
    )
    assert float(first["val_acc"]) == record["val_acc"]
    assert float(first["sum_lr"]) == pytest.approx(1e-4 * (1 + 0.5))  # cosine over two steps
    (measured,) = json.loads((tmp_path / f"{name}_T.json").read_text())["results"]
    assert float(first["transferability"]) == measured["transferability"]
    layer = measured["layers"][3]
    for prefix, key in (("T", "transferability"), ("distance_a_b", "distance_a_b")):
        assert float(first[f"{prefix} {layer['name']}"]) == layer[key]
    assert "T fc" not in first
    assert (first["classes"], first["batch_size"], first["weight_decay"]) == ("3", "6", "0.0001")

    assert (null["start"], null["classes"], null["weight_decay"]) == ("null", "2", "0.0")
    # The start is neither theta_r nor theta_A, and T0 is measured against it.
    record = json.loads((tmp_path / f"{null_name()}.json").read_text())
    assert record["parent_sha256"] == sha256(tmp_path / "null_seed1.pth")
    assert sha256(task / "r.pth") != sha256(tmp_path / "null_seed1.pth")


def null_name():
    return "Folder_null_samples12_classes2_steps2_batch_size6_lr1e-4_weight_decay0_seed1"


def test_finished_rows_are_skipped_and_failing_ones_passed_over(
    task, tmp_path, capsys, monkeypatch
):
    rows = ["Folder,theta_A,12,,2,6,1e-4,,0", "Folder,theta_A,99,,2,6,1e-4,,0"]
    rows.append("Folder,theta_A,15,,2,6,1e-4,,0")
    assert study(task, tmp_path, rows) == 1
    err = capsys.readouterr().err
    assert "error: --max_samples 99 is more than the 36 training images" in err
    assert "samples99_steps2_batch_size6_lr1e-4_seed0 failed and is passed over" in err
    assert [row["samples"] for row in read_results(tmp_path)] == ["12", "15"]

    other = tmp_path / "other.pth"
    state_dict = torch.load(task / "a.pth")
    checkpoint.write(other, {key: value * 2 for key, value in state_dict.items()})
    assert study(task, tmp_path, rows, "-a", other) == 2
    assert "_result.json is of another a_sha256 (" in (capsys.readouterr().err)

    calls = []
    monkeypatch.setattr(finetune, "main", lambda words: calls.append(words))
    assert study(task, tmp_path, [rows[2], rows[0]]) == 0
    assert calls == []
    assert [row["samples"] for row in read_results(tmp_path)] == ["15", "12"]


def test_checkpoint_from_another_start_is_not_measured(task, tmp_path, capsys):
    """As where the run ended between training and measuring, and theta_A was trained again."""
    row = "Folder,theta_A,12,,2,6,1e-4,,0"
    assert study(task, tmp_path, [row]) == 0
    (name,) = [path.name for path in tmp_path.glob("*_result.json")]
    (tmp_path / name).unlink()
    (tmp_path / "results.csv").unlink()
    other = tmp_path / "other.pth"
    state_dict = torch.load(task / "a.pth")
    checkpoint.write(other, {key: value * 2 for key, value in state_dict.items()})
    assert study(task, tmp_path, [row], "-a", other) == 1
    assert "is of a finished run with another parent_sha256" in capsys.readouterr().err
    assert not (tmp_path / "results.csv").exists()


def test_row_that_another_process_runs_is_left_to_it(task, tmp_path, capsys):
    name = "Folder_theta_A_samples12_steps2_batch_size6_lr1e-4_seed0"
    with locked(tmp_path / f"{name}.pth"):
        assert study(task, tmp_path, ["Folder,theta_A,12,,2,6,1e-4,,0"]) == 0
    out = capsys.readouterr().out
    assert "left to another process: " in out
    assert not (tmp_path / "results.csv").exists()


def test_table_of_something_else_is_not_overwritten(task, tmp_path, capsys):
    (tmp_path / "results.csv").write_text("dataset,G\nCIFAR-10,1\n")
    assert study(task, tmp_path, ["Folder,theta_A,12,,2,6,1e-4,,0"]) == 2
    assert "results.csv is not the table of a study" in capsys.readouterr().err
    assert (tmp_path / "results.csv").read_text() == "dataset,G\nCIFAR-10,1\n"


def test_commands_of_unfinished_rows_are_those_of_the_scripts(task, tmp_path, capsys):
    assert study(task, tmp_path, ["Folder,null,12,,2,,,,0"], "--print_commands") == 0
    (line,) = capsys.readouterr().out.splitlines()
    first, second = line.split(" && ")
    assert first.startswith("python pretrain_on_ImageNet.py --max_epoch 0")
    words = second.split()
    assert words[:2] == ["python", "finetune.py"]
    args = finetune.parse_args(words[2:])
    assert (args.max_samples, args.max_steps, args.keep, args.batch_size) == (12, 2, "last", 128)
    assert not (tmp_path / "results.csv").exists()


@pytest.fixture(scope="module")
def other_network(tmp_path_factory):
    """theta_r of a network with twice the channels."""
    path = tmp_path_factory.mktemp("other") / "r.pth"
    pretrain_on_ImageNet.main(["--max_epoch", "0", "--arch", "resnet50_w16", "-r", str(path)])
    return path


@pytest.mark.parametrize("further", [(), ("--print_commands",)])
def test_files_of_other_networks_are_refused_before_anything_is_trained(
    task, tmp_path, capsys, other_network, further
):
    capsys.readouterr()
    rows = ["Folder,null,12,,2,6,,,0", "Folder,theta_A,12,,2,6,,,0"]
    for options, message in (
        (("--arch", "resnet50_w16"), "a.pth is a resnet50_w8, not a resnet50_w16; leave --arch"),
        (("-r", other_network), "(resnet50_w8) and .*(resnet50_w16) are different networks"),
    ):
        out = tmp_path / "out"
        assert study(task, tmp_path, rows, *options, "--out", out, *further) == 2
        printed = capsys.readouterr()
        assert re.search(message.replace("(", r"\(").replace(")", r"\)"), printed.err)
        assert (printed.out, len(printed.err.splitlines())) == ("", 1)
        assert not out.exists()


def test_network_is_told_from_theta_a(task, tmp_path, capsys):
    (tmp_path / "plan.csv").write_text(f"{HEADER}\nFolder,null,12,,2,6,,,0\n")
    files = ["-r", task / "r.pth", "-a", task / "a.pth", "--out", tmp_path]
    words = ["study", tmp_path / "plan.csv", "--data_dir", task / "b", *files, "--print_commands"]
    assert run(lambda: main([str(word) for word in words])) == 0
    assert capsys.readouterr().out.count("--arch resnet50_w8") == 2


def test_data_set_that_is_not_there_is_told_once(task, tmp_path, capsys, monkeypatch):
    missing = [f"CIFAR-10,{start},12,,2,6,,,0" for start in ("theta_A", "null")]
    out = tmp_path / "out"
    for further in ((), ("--print_commands",)):
        assert study(task, tmp_path, missing, "--out", out, *further) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: no CIFAR-10 in ")
        assert err.endswith("cifar.html), or let finetune.py --download get it\n")
        assert (len(err.splitlines()), out.exists()) == (1, False)
    rows = [*missing, "Folder,theta_A,12,,2,6,,,0"]
    done = []
    monkeypatch.setattr(command, "attempt", lambda args, row, *_: done.append(row.name))
    assert study(task, tmp_path, rows) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: no CIFAR-10 in ")
    assert line.endswith("; the rows of CIFAR-10 are passed over")
    assert done == ["Folder_theta_A_samples12_steps2_batch_size6_seed0"]
    assert study(task, tmp_path, rows, "--print_commands") == 1
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Folder,theta_A,12,,2,6,1e-4,,0", "folder,theta_A,12,,2,6,0.0001,,0"),
        ("Folder,null,12,,2,128,,,0", "Folder,null,12,,2,,0.01,,0"),
    ],
)
def test_run_that_is_planned_twice_is_one_line(task, tmp_path, capsys, first, second):
    assert study(task, tmp_path, [first, "Folder,theta_A,24,,2,6,,,0", second]) == 2
    err = capsys.readouterr().err
    assert err.endswith("plan.csv line 4: the same run as line 2; remove one of them\n")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.csv"]


def test_statsmodels_is_missed_before_anything_is_trained(task, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    row = "Folder,theta_A,12,,2,6,,,0"
    assert study(task, tmp_path, [row], "--print_commands") == 0
    assert study(task, tmp_path, [row]) == 2
    assert "run pip install -r requirements-findings.txt" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["plan.csv"]


def test_probe_is_evaluated_on_the_device_with_the_workers(task, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "choose_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(
        command, "evaluate_file", lambda *files, **options: seen.append(options) or (1.0, 50.0, 6)
    )
    row = "Folder,theta_A,12,,2,6,1e-4,,0"
    assert study(task, tmp_path, [row], "--num_workers", 1, "--device", "cpu") == 0
    assert [(each["device"].type, each["num_workers"]) for each in seen] == [("meta", 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Folder,theta_B,12,,2,6,,,0", "plan.csv line 2: start is theta_B; it must be one of"),
        ("Folder,theta_A,12,,,6,,,0", "plan.csv line 2: steps is empty"),
        ("Folder,theta_A,-1,,2,6,,,0", "plan.csv line 2: argument --max_samples: must be a whole"),
        (
            "Folder,theta_A,12,,2,6,fast,,0",
            "plan.csv line 2: argument --lr: must be a number above",
        ),
        ("Folder,theta_A,12,,2,6,nan,,0", "plan.csv line 2: argument --lr: must be"),
        ("Folder,theta_A,12,1,2,6,,,0", "plan.csv line 2: argument --max_classes: must be"),
        ("Nowhere,theta_A,12,,2,6,,,0", "plan.csv line 2: unknown data set 'Nowhere'"),
    ],
)
def test_row_that_cannot_be_is_one_line(task, tmp_path, capsys, row, message):
    assert study(task, tmp_path, [row]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["plan.csv"]


def test_plan_with_another_column_is_one_line(task, tmp_path, capsys):
    assert study(task, tmp_path, ["1,2"], header="dataset,colour") == 2
    assert "plan.csv does not know the column colour" in capsys.readouterr().err


def test_depth_is_correlated_run_by_run_with_and_without_the_null(tmp_path):
    path = tmp_path / "r.csv"
    names = "dataset,classes,samples,batch_size,lr,weight_decay,start,steps,seed"
    budget = "X,10,500,128,0.01,1e-4"
    lines = [f"{names},T conv1,T layer1.0,T layer1.1,T layer2.0"]
    lines += [f"{budget},theta_A,200,0,1,2,3,4", f"{budget},theta_A,800,0,4,3,2,1"]
    lines += [f"{budget},theta_A,200,1,1,2,4,3"]
    # No null run has the budget of this one, with more images.
    lines += ["X,10,8000,128,0.01,1e-4,theta_A,200,1,1,2,4,3"]
    # T / T0 of the 200-step runs falls: 1, 1/2, 1/3, 1/4 (and 1, 1/2, 4/9, 3/16).
    lines += [f"{budget},null,200,0,1,3,8,15", f"{budget},null,200,1,1,5,10,17"]
    path.write_text("\n".join(lines) + "\n")
    t, t0, ratio = depth.summary(read_table(path))
    # Seeds: (1 - 1) / 2 = 0, and 0.8; their t interval with one degree of freedom is 12.7 wide.
    assert t == "  T      positive in 3 of 4 runs, mean +0.400 (95 % -4.682 ... +5.482, 2 seeds)"
    assert t0 == "  T0     positive in 2 of 2 runs, mean +1.000 (95 % +1.000 ... +1.000, 2 seeds)"
    assert ratio.startswith("  T / T0 positive in 0 of 2 runs, mean -1.000")


@pytest.mark.parametrize(
    "values", [(1, 2, 2, 3), (5, 5, 1, 1, 2), (math.inf, 3, math.inf, 1), (4, 3, 2, 1)]
)
def test_rank_correlation_with_ties_is_spearmans(values):
    from scipy.stats import spearmanr

    expected = spearmanr(range(len(values)), values).statistic
    assert depth.depth_correlation(values) == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_of_equal_values_and_of_none_is_none():
    assert np.isnan(depth.depth_correlation([math.inf] * 3))
    assert depth.depth_correlation([1, math.nan, 2]) == pytest.approx(1)


def write_table(path, slopes, *, spread=0.0):
    """Results whose ln T = 1 + b ln N + c ln S + spread * (an orthogonal pattern), per seed."""
    lines = [RESULT_HEADER]
    for seed, (b, c) in enumerate(slopes):
        for i, n in enumerate((500, 2000, 8000)):
            for j, s in enumerate((200, 800, 3200)):
                noise = spread * (-1) ** (i + j)
                t = math.exp(1 + b * math.log(n) + c * math.log(s) + noise)
                lines.append(f"X,theta_A,{n},10,{s},128,0.01,1e-4,{seed},{(i - j) ** 2},{t!r}")
        # Neither a null run nor an arm belongs to the fit.
        lines.append(f"X,null,8000,10,800,128,0.01,1e-4,{seed},1,5")
        lines.append(f"X,theta_A,8000,10,800,32,0.01,1e-4,{seed},1,5")
    path.write_text("\n".join(lines) + "\n")
    return list(summary(read_table(path)))


def test_slopes_are_recovered_per_seed_with_their_interval(tmp_path):
    lines = write_table(tmp_path / "r.csv", [(0.1, -0.7), (0.2, -0.6), (0.0, -0.5)])
    assert lines[0] == "dataset X, classes 10, batch_size 128, lr 0.01, weight_decay 1e-4:"
    assert lines[1] == " 3 seeds; N 500, 2000, 8000; S 200, 800, 3200"
    assert lines[2] == "  ln T = a + b ln N + c ln S"
    # Mean 0.1, sd 0.1, t(0.975, 2) = 4.303.
    half = 4.303 * 0.1 / math.sqrt(3)
    assert lines[3] == f"    b      +0.100 (95 % {0.1 - half:+.3f} ... {0.1 + half:+.3f}, 3 seeds)"
    assert lines[4].startswith("    c      -0.600 (95 % ")
    assert lines[5].startswith("    b + c  -0.500 (95 % ")
    assert lines[7].startswith("    b      +0.100")
    assert lines[-1].startswith("published slope of ln T on ln N, over data sets: -0.52")


def test_seeds_with_other_rows_are_not_taken_for_noise(tmp_path):
    """ln T bends over ln S and has no noise: seeds without the longest runs must not differ."""
    path = tmp_path / "r.csv"
    lines = [RESULT_HEADER]
    for seed in range(4):
        for n in (500, 2000):
            for s in (200, 800, 3200)[: 3 if seed < 2 else 2]:
                t = math.exp(5 - 0.05 * math.log(s) ** 2)
                lines.append(f"X,theta_A,{n},10,{s},128,0.01,1e-4,{seed},{n % 7},{t!r}")
    path.write_text("\n".join(lines) + "\n")
    found = list(summary(read_table(path)))
    titles = [line for line in found if "seeds; N" in line]
    assert titles == [
        " 4 seeds; N 500, 2000; S 200, 800",
        " 2 seeds; N 500, 2000; S 200, 800, 3200",
    ]
    for line in found:
        slope = re.fullmatch(
            r"    (?:b \+ c|b|c) +([+-].*) \(95 % ([+-].*) \.\.\. ([+-].*), .*\)", line
        )
        if slope:
            assert slope[1] == slope[2] == slope[3], line


def test_summary_of_a_table_is_that_of_the_study(task, tmp_path, capsys):
    assert study(task, tmp_path, GRID) == 0
    printed = capsys.readouterr().out
    assert run(lambda: main(["summary", str(tmp_path / "results.csv")])) == 0
    out = capsys.readouterr().out
    assert "ln T = a + b ln N + c ln S" in out
    assert out.endswith("  published values of CIFAR-10: +0.51 over 17 layers\n")
    assert out in printed
    (tmp_path / "other.csv").write_text("dataset,G\nX,1\n")
    assert run(lambda: main(["summary", str(tmp_path / "other.csv")])) == 2
    assert "is not the table of a study: it has no column start" in capsys.readouterr().err


def test_one_seed_has_no_interval(tmp_path):
    lines = write_table(tmp_path / "r.csv", [(0.1, -0.7)])
    assert lines[3] == "    b      +0.100 (one seed, no interval)"


def test_probe_loss_that_explains_everything_leaves_no_slopes(tmp_path):
    """With ln T a function of the probe loss alone, b and c at equal loss are 0."""
    path = tmp_path / "r.csv"
    write_table(path, [(0.0, 0.0)])
    rows = [line.split(",") for line in path.read_text().splitlines()]
    for row in rows[1:]:
        row[-1] = repr(math.exp(2 - 0.3 * float(row[-2])))
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    lines = list(summary(read_table(path)))
    assert lines[7].replace("-0.000", "+0.000") == "    b      +0.000 (one seed, no interval)"


def test_data_and_steps_that_go_together_are_not_fitted(tmp_path):
    path = tmp_path / "r.csv"
    lines = [RESULT_HEADER]
    for n in (100, 200, 400, 800, 1600):
        lines.append(f"X,theta_A,{n},10,{10 * n},128,0.01,1e-4,0,1,{n}")
    path.write_text("\n".join(lines) + "\n")
    (line,) = summary(read_table(path))
    assert line.startswith("ln T = a + b ln N + c ln S is not fitted: that takes four runs a seed")


WIDE_HEADER = f"{RESULT_HEADER},a_sha256,T l1,T l2,T l3"


def wide_row(**changes):
    """A row of results with three layers."""
    cells = dict.fromkeys(WIDE_HEADER.split(","), "1") | {
        **{"dataset": "X", "start": "theta_A", "samples": "500.0", "steps": "200"},
        **{"lr": "0.01", "seed": "0", "T l2": "2", "T l3": "3", "a_sha256": "aa"},
    }
    return ",".join(str(cell) for cell in (cells | changes).values())


def summarise(path, rows, capsys):
    """Exit code, stdout and stderr of the command."""
    path.write_text("\n".join([WIDE_HEADER, *rows]) + "\n")
    code = run(lambda: main(["summary", str(path)]))
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("transferability", "", "the value is missing; fill it in"),
        ("transferability", "inf", "inf is not finite"),
        ("T l3", "", "the value is missing; fill it in"),
        ("T l3", "nan", "nan is not finite"),
        ("steps", "0", "0 has no logarithm; it must be above 0"),
        ("samples", "few", "'few' is not a number"),
        ("probe_loss", "", "the value is missing"),
    ],
)
def test_wrong_cell_of_a_study_is_one_line(tmp_path, capsys, column, cell, message):
    path = tmp_path / "r.csv"
    rows = [wide_row(seed=7), wide_row(**{column: cell})]
    code, out, err = summarise(path, rows, capsys)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {path} line 3 (X), column {column}: {message}")


def grid_rows(**changes):
    """Runs that can be fitted, with two layers that did not move."""
    still = {"T l1": "inf", "T l3": "inf"}
    return [
        wide_row(samples=n, steps=s, transferability=repr(n**0.1 / s**0.5), **still, **changes)
        for n in (500, 2000)
        for s in (200, 800, 3200)
    ]


def test_layers_that_did_not_move_are_ties(tmp_path, capsys):
    code, out, err = summarise(tmp_path / "r.csv", grid_rows(), capsys)
    assert (code, err) == (0, "")
    assert " 1 seeds; N 500, 2000; S 200, 800, 3200\n" in out
    assert "  T      positive in 0 of 6 runs, mean +0.000 (one seed, no interval)\n" in out


def test_two_theta_a_are_fitted_apart(tmp_path, capsys):
    rows = [*grid_rows(), *grid_rows(a_sha256="bb" * 32)]
    code, out, _ = summarise(tmp_path / "r.csv", rows, capsys)
    titles = [line for line in out.splitlines() if line.startswith("dataset X")]
    assert (code, [title.rpartition(" ")[2] for title in titles]) == (0, ["aa:", "bbbbbbbb:"])


def test_settings_compare_as_numbers(tmp_path, capsys):
    rows = grid_rows(lr="1e-2")[:3] + grid_rows()[3:]
    code, out, _ = summarise(tmp_path / "r.csv", rows, capsys)
    assert (code, out.count("dataset X")) == (0, 1)


def test_run_that_is_there_twice_is_one_line(tmp_path, capsys):
    path = tmp_path / "r.csv"
    rows = [*grid_rows(), wide_row(samples="5e2", steps="200", lr="1e-2")]
    code, out, err = summarise(path, rows, capsys)
    assert (code, out) == (2, "")
    assert err == (
        f"error: {path} line 8 (X) is of the same run as line 2: seed 0, samples 5e2, steps 200; "
        "remove one of them\n"
    )
