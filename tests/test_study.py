"""The study of data against steps: the runs of a plan, and their table."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import drawn_images
import pytest
import torch

import cal_transferability
import pretrain_on_ImageNet
from console import run
from findings.__main__ import main
from models import checkpoint
from safe_io import locked, sha256

ROOT = Path(__file__).parents[1]
HEADER = "dataset,start,samples,classes,steps,batch_size,lr,weight_decay,seed"
BLOCKS = "block,dataset,folder,start,labels,samples,steps,epochs,batch_size,seed"


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Images of task B, and theta_r and theta_A of a network that has taken a few steps."""
    folder = tmp_path_factory.mktemp("study")
    drawn_images.draw(folder / "a", classes=2, train_per_class=16, val_per_class=4)
    drawn_images.draw(folder / "b", task="shapes", classes=3, train_per_class=12, val_per_class=4)
    drawn_images.draw(folder / "c", task="shapes", classes=3, train_per_class=15, val_per_class=4)
    drawn_images.draw(folder / "source", classes=2, train_per_class=4, val_per_class=24)
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
        *("--num_workers", 0, *options),
    ]
    return run(lambda: main([str(word) for word in words]))


def test_study_outlives_the_reader_of_its_lines(task, tmp_path):
    (tmp_path / "plan.csv").write_text(f"{HEADER}\n{ROW}\n")
    words = [
        *(sys.executable, "-m", "findings", "study", tmp_path / "plan.csv"),
        *("--data_dir", task / "b", "--arch", "resnet50_w8", "--image_size", 32),
        *("-r", task / "r.pth", "-a", task / "a.pth", "--out", tmp_path, "--num_workers", 0),
    ]
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        list(map(str, words)), cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert ran.returncode == 0, ran.stderr
    assert len(read_results(tmp_path)) == 1


def read_results(out):
    with open(out / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


NAME = "Folder_theta_A_samples12_steps2_batch_size6_lr1e-4_seed0"
ROW = "Folder,theta_A,12,,2,6,1e-4,,0"
GRID = [f"Folder,theta_A,{n},,{s},6,1e-4,,0" for n in (12, 24) for s in (2, 3, 4)]
NULL = "Folder_random_samples12_classes2_steps2_batch_size6_lr1e-4_weight_decay0_seed1"


def test_plan_is_run_measured_and_summarised(task, tmp_path, capsys):
    assert study(task, tmp_path, [*GRID, "Folder,random,12,2,2,6,1e-4,0,1"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^run 2 of 7; about \d+ h \d\d min left: Folder_", printed, re.MULTILINE)
    assert "one line, ln T = a + b ln N + c ln S: 1 seed; N 12, 24; S 2, 3, 4" in printed
    assert run(lambda: main(["summary", str(tmp_path / "results.csv")])) == 0
    assert capsys.readouterr().out in printed
    rows = read_results(tmp_path)
    assert [row["steps"] for row in rows] == ["2", "3", "4", "2", "3", "4", "2"]

    first, null = rows[0], rows[-1]
    record = json.loads((tmp_path / f"{NAME}.json").read_text())
    assert record["train_images"] == int(first["samples"]) == 12
    assert (record["steps"], record["kept"]) == (2, "last")
    assert record["parent_sha256"] == sha256(task / "a.pth")
    assert float(first["val_acc"]) == record["val_acc"]
    assert float(first["sum_lr"]) == pytest.approx(1e-4 * (1 + 0.5))  # cosine over two steps
    (measured,) = json.loads((tmp_path / f"{NAME}_T.json").read_text())["results"]
    assert float(first["transferability"]) == measured["transferability"]
    layer = measured["layers"][3]
    for prefix, key in (("T", "transferability"), ("distance_a_b", "distance_a_b")):
        assert float(first[f"{prefix} {layer['name']}"]) == layer[key]
    assert "T fc" not in first
    assert (first["classes"], first["batch_size"], first["weight_decay"]) == ("3", "6", "0.0001")

    assert (null["start"], null["classes"], null["weight_decay"]) == ("random", "2", "0.0")
    # The start is neither theta_r nor theta_A, and T0 is measured against it.
    record = json.loads((tmp_path / f"{NULL}.json").read_text())
    assert record["parent_sha256"] == sha256(tmp_path / "random_seed0.pth")
    assert sha256(task / "r.pth") != sha256(tmp_path / "random_seed0.pth")


@pytest.fixture(scope="module")
def other_a(task):
    """theta_A of the same network, trained otherwise."""
    path = task / "other_a.pth"
    state_dict = torch.load(task / "a.pth")
    checkpoint.write(path, {key: value * 2 for key, value in state_dict.items()})
    return path


def test_finished_rows_are_skipped_and_failing_ones_passed_over(task, tmp_path, capsys, other_a):
    rows = [ROW, "Folder,theta_A,99,,2,6,1e-4,,0", "Folder,theta_A,15,,2,6,1e-4,,0"]
    assert study(task, tmp_path, rows) == 1
    err = capsys.readouterr().err
    assert "error: --max_samples 99 is more than the 36 training images" in err
    assert "samples99_steps2_batch_size6_lr1e-4_seed0 failed and is passed over" in err
    assert [row["samples"] for row in read_results(tmp_path)] == ["12", "15"]
    assert study(task, tmp_path, rows, "-a", other_a) == 2
    assert "_result.json is of another a_sha256 (" in (capsys.readouterr().err)

    capsys.readouterr()
    assert study(task, tmp_path, [rows[2], rows[0]]) == 0
    assert "run 1 of" not in capsys.readouterr().out
    assert [row["samples"] for row in read_results(tmp_path)] == ["15", "12"]


def test_checkpoint_from_another_start_is_not_measured(task, tmp_path, capsys, other_a):
    """As where the run ended between training and measuring, and theta_A was trained again."""
    assert study(task, tmp_path, [ROW]) == 0
    for name in (f"{NAME}_result.json", "results.csv"):
        (tmp_path / name).unlink()
    assert study(task, tmp_path, [ROW], "-a", other_a) == 1
    assert "is of a finished run with another parent_sha256" in capsys.readouterr().err
    assert not (tmp_path / "results.csv").exists()


def test_row_that_another_process_runs_is_left_to_it(task, tmp_path, capsys):
    with locked(tmp_path / f"{NAME}.pth"):
        assert study(task, tmp_path, [ROW]) == 0
    assert "left to another process: " in capsys.readouterr().out
    assert not (tmp_path / "results.csv").exists()


def test_table_of_something_else_is_not_overwritten(task, tmp_path, capsys):
    (tmp_path / "results.csv").write_text("dataset,G\nCIFAR-10,1\n")
    assert study(task, tmp_path, [ROW]) == 2
    assert "results.csv is not the table of a study" in capsys.readouterr().err
    assert (tmp_path / "results.csv").read_text() == "dataset,G\nCIFAR-10,1\n"


def test_printed_command_does_its_run_and_no_other(task, tmp_path, capsys):
    rows = [ROW, "Folder,random,12,,2,6,,,0"]
    assert study(task, tmp_path, rows, "--print_commands") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    words = shlex.split(lines[1])
    assert words[:4] == ["python", "-m", "findings", "study"]
    assert not (tmp_path / "results.csv").exists()
    assert run(lambda: main(words[3:])) == 0
    assert [row["start"] for row in read_results(tmp_path)] == ["random"]
    capsys.readouterr()
    assert study(task, tmp_path, rows, "--print_commands") == 0
    assert capsys.readouterr().out.splitlines() == lines[:1]
    assert study(task, tmp_path, rows, "--run", "nothing") == 2
    assert "no run of the plan has the name nothing" in capsys.readouterr().err


TABLE = [
    "E,Folder,c,theta_A,true,12,2,,6,0",
    "E,Folder,c,theta_A,true,12,2,,6,1",
    "P,Folder,c,theta_A,true,12,2,,6,0",
    "N,Folder,c,theta_A,random,12,2,,6,0",
    "N,Folder,c,shuffled,true,12,,1,6,0",
    "N,Folder,c,random,true,12,2,,6,0",
    "N,Folder,c,random:1,true,12,2,,6,1",
]


@pytest.fixture(scope="module")
def blocks(task, tmp_path_factory):
    """A finished study of several blocks, with the factors of its data set."""
    out = tmp_path_factory.mktemp("blocks")
    assert study(task, out, TABLE, *of_several(task), header=BLOCKS) == 0
    return out


def of_several(task):
    return "--data_dir", task, "--source", "Folder", "--source_dir", task / "source"


def test_blocks_folders_labels_and_starts_are_columns(task, blocks):
    rows = read_results(blocks)
    first, _, shared, labels, shuffled, random, other = rows
    assert [row["block"] for row in rows] == ["E", "E", "P", *"NNNN"]
    # A run of two blocks is done once, and has a row in each.
    assert {key for key in first if first[key] != shared[key]} == {"block"}
    assert (labels["labels"], labels["val_acc"]) == ("random", "")
    assert (shuffled["start"], shuffled["steps"], shuffled["epochs"]) == ("shuffled", "2", "1")
    assert {row["folder"] for row in rows} == {"c"}
    # All random starts of one seed are one file.
    assert random["start"] == other["start"] == "random"
    assert random["start_sha256"] != other["start_sha256"]
    assert first["start_sha256"] == first["a_sha256"] == sha256(task / "a.pth")
    assert "cpu" in first["processor"]
    assert first["torch"] == torch.__version__


def test_companions_and_agreement_are_those_of_step_3(task, blocks, tmp_path):
    first, second, *others = read_results(blocks)
    files = [str(path) for path in sorted(blocks.glob("*_theta_A_true_*.pth"))]
    words = ["-r", str(task / "r.pth"), "-a", str(task / "a.pth"), "-b", *files]
    report = tmp_path / "T.json"
    assert run(lambda: cal_transferability.main([*words, "--group", "--json", str(report)])) == 0
    content = json.loads(report.read_text())
    (measured, _), agreement = content["results"], content["group"]["agreement"]
    for key in ("transferability", "rotation", "t_angle", "left_of_r", "shrinkage"):
        assert float(first[key]) == measured[key]
    for layer in measured["layers"][:-1]:
        assert float(first[f"T_angle {layer['name']}"]) == layer["t_angle"]
        assert float(first[f"rotation {layer['name']}"]) == layer["rotation"]
    assert float(first["agreement_01"]) == float(second["agreement"]) == agreement
    # One seed alone, and starts that are not the same, agree in nothing.
    assert [row["agreement"] for row in others[1:]] == [""] * 4
    words[1] = "random:1"
    words += ["--arch", "resnet50_w8", "--json", str(report), "--no_plot"]
    assert run(lambda: cal_transferability.main(words)) == 0
    substitute = json.loads(report.read_text())["results"][0]["transferability"]
    assert float(first["transferability_substitute"]) == substitute


def test_substitute_is_not_theta_r_itself(task, tmp_path):
    # Of as many classes as theta_A has: the draw depends on them.
    words = ["--max_epoch", "0", "--arch", "resnet50_w8", "--seed", "1", "--max_classes", "2"]
    pretrain_on_ImageNet.main([*words, "-r", str(tmp_path / "r1.pth")])
    assert study(task, tmp_path, [ROW], "-r", tmp_path / "r1.pth") == 0
    (row,) = read_results(tmp_path)
    t, substitute = float(row["transferability"]), float(row["transferability_substitute"])
    assert substitute != t
    assert substitute == pytest.approx(t, rel=0.2)


def test_finished_study_changes_nothing_even_without_its_checkpoints(task, blocks, capsys):
    before = (blocks / "results.csv").read_bytes()
    for path in blocks.glob("Folder*.pth"):
        path.unlink()
    assert study(task, blocks, TABLE, *of_several(task), header=BLOCKS) == 0
    assert (blocks / "results.csv").read_bytes() == before
    assert "run 1 of" not in capsys.readouterr().out


def test_factors_stand_beside_every_row(task, blocks):
    with open(blocks / "factors.csv", newline="") as file:
        (factors,) = csv.DictReader(file)
    assert factors["dataset"] == "Folder:c"
    for row in read_results(blocks):
        assert [row[name] for name in ("G", "D", "classes")] == [
            factors[name] for name in ("G", "D", "classes")
        ]


def test_two_plans_append_to_one_table(task, tmp_path, other_a):
    table = tmp_path / "table.csv"
    first, second = tmp_path / "first", tmp_path / "second"
    further = "--data_dir", task, "--csv", table
    assert study(task, first, TABLE[:1], *further, header=BLOCKS) == 0
    rows = [TABLE[0].replace("E,", "A2,", 1)]
    assert study(task, second, rows, *further, "-a", other_a, header=BLOCKS) == 0
    text = table.read_text()
    assert [line.split(",")[0] for line in text.splitlines()] == ["block", "E", "A2"]
    assert study(task, first, TABLE[:1], *further, header=BLOCKS) == 0
    assert table.read_text() == text


def test_row_may_name_other_files(task, tmp_path, other_a):
    row = f"Folder,theta_A,12,,2,6,1e-4,,0,{other_a}"
    assert study(task, tmp_path, [ROW + ",", row], header=HEADER + ",a") == 0
    first, second = read_results(tmp_path)
    assert first["a_sha256"] == sha256(task / "a.pth")
    assert second["a_sha256"] == second["start_sha256"] == sha256(other_a)


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
    rows = ["Folder,random,12,,2,6,,,0", "Folder,theta_A,12,,2,6,,,0"]
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
    (tmp_path / "plan.csv").write_text(f"{HEADER}\nFolder,random,12,,2,6,,,0\n")
    files = ["-r", task / "r.pth", "-a", task / "a.pth", "--out", tmp_path]
    words = ["study", tmp_path / "plan.csv", "--data_dir", task / "b", *files, "--print_commands"]
    assert run(lambda: main([str(word) for word in words])) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert run(lambda: main([str(word) for word in words[:-1]])) == 0
    assert read_results(tmp_path)[0]["arch"] == "resnet50_w8"


def test_data_set_that_is_not_there_is_told_once(task, tmp_path, capsys):
    missing = [f"CIFAR-10,{start},12,,2,6,,,0" for start in ("theta_A", "random")]
    out = tmp_path / "out"
    for further in ((), ("--print_commands",)):
        assert study(task, tmp_path, missing, "--out", out, *further) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: no CIFAR-10 in ")
        assert err.endswith("cifar.html), or let finetune.py --download get it\n")
        assert (len(err.splitlines()), out.exists()) == (1, False)
    rows = [*missing, ROW]
    assert study(task, tmp_path, rows, "--print_commands") == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    (line,) = err.splitlines()
    assert line.startswith("warning: no CIFAR-10 in ")
    assert line.endswith("; the rows of CIFAR-10 are passed over")
    assert study(task, tmp_path, rows) == 1
    assert [row["dataset"] for row in read_results(tmp_path)] == ["Folder"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Folder,theta_A,12,,2,6,1e-4,,0", "folder,theta_A,12,,2,6,0.0001,,0"),
        # The old word for a random start.
        ("Folder,random,12,,2,128,,,0", "Folder,null,12,,2,,0.01,,0"),
    ],
)
def test_run_that_is_planned_twice_is_one_line(task, tmp_path, capsys, first, second):
    assert study(task, tmp_path, [first, "Folder,theta_A,24,,2,6,,,0", second]) == 2
    err = capsys.readouterr().err
    assert err.endswith("plan.csv line 4: the same run as line 2; remove one of them\n")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.csv"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Folder,theta_B,12,,2,6,,,0", "plan.csv line 2: start is theta_B; it must be one of"),
        ("Folder,theta_A,12,,,6,,,0", "plan.csv line 2: steps and epochs are empty"),
        ("Folder,theta_A,-1,,2,6,,,0", "plan.csv line 2: argument --max_samples: must be a whole"),
        ("Folder,theta_A,12,,2,6,fast,,0", "plan.csv line 2: argument --lr: must be a number"),
        ("Folder,theta_A,12,,2,6,nan,,0", "plan.csv line 2: argument --lr: must be"),
        ("Folder,theta_A,12,1,2,6,,,0", "plan.csv line 2: argument --max_classes: must be"),
        ("Folder,shuffled:x,12,,2,6,,,0", "plan.csv line 2: start is shuffled:x; give"),
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
