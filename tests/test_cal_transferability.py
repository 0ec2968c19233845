"""Step 3 through its command line: the values, the special cases, and what it prints and writes."""

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from checkpoints import (
    ROOT,
    assert_refused,
    constant_triple,
    resnet_shapes,
    run_script,
    triple,
    write_record,
    write_triple,
)
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models import resnet50

from cal_transferability import measure, parse_args
from measurement import plot
from measurement.companions import COMPANIONS
from models import paths
from models.checkpoint import Checkpoint
from safe_io import sha256

# The 18 values that the original repository prints for CIFAR-10.
PUBLISHED = """
    3.44 7.76 8.59 7.3 5.42 9.2 6.1 5.52 4.23 7.65 8.3 8.32 8.86 8.88 5.96 13.0 13.81 1.0
"""
PUBLISHED = [float(value) for value in PUBLISHED.split()]
# As many layers as ResNet-50 has, of one convolution each.
BLOCKS = [f"layer{s}.{b}" for s, count in enumerate((3, 4, 6, 3), start=1) for b in range(count)]
NAMES = ["conv1.weight", *(f"{block}.conv1.weight" for block in BLOCKS)]
MEAN_OF_17 = "(mean over 17 layers; the classifier is new and left out)"


def layers_of(path):
    """The layers that --json wrote, by name."""
    return {x["name"]: x for x in json.loads(path.read_text())["results"][0]["layers"]}


def constant_resnet(r, a, b, *, classes=10):
    """Dicts of all layers of a ResNet-50, constant, with a classifier."""
    contents = constant_triple(NAMES, r, a, b, dtype=torch.float64)
    for content in contents:
        content["fc.weight"] = torch.zeros(classes, 2)
    return contents


# Numbers


@pytest.mark.parametrize("seed", [0, 1])
def test_golden_numbers_of_resnet50(seed, tmp_path):
    golden = json.loads((ROOT / "tests" / "golden_resnet50.json").read_text())[str(seed)]
    with torch.device("meta"):
        shapes = [(name, tuple(p.shape)) for name, p in resnet50().named_parameters()]
    args = write_triple(tmp_path, triple(shapes, seed))
    ran = run_script("cal_transferability.py", *args, "--no_plot", "--json", "t.json", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads((tmp_path / "t.json").read_text())
    (result,) = found["results"]
    *layers, head = result["layers"]
    assert found["arch"] == "resnet50"
    assert [x["transferability"] for x in layers] == pytest.approx(golden["layers"], rel=1e-5)
    assert [x["distance_r_b"] for x in layers] == pytest.approx(golden["d_rB"], rel=1e-5)
    assert [x["distance_a_b"] for x in layers] == pytest.approx(golden["d_AB"], rel=1e-5)
    assert result["transferability"] == pytest.approx(golden["overall"], rel=1e-5)
    assert (head["name"], head["transferability"]) == ("fc", 1.0)
    printed = ", ".join(str(round(value, 2)) for value in [*golden["layers"], 1.0])
    assert ran.stdout.splitlines()[:2] == [
        f"Layer-wise transferability:  [{printed}]",
        f"Transferability: {golden['overall']:.2f} {MEAN_OF_17}",
    ]


def test_mean_of_the_published_values(step_3, tmp_path):
    r, a, b = constant_resnet(0, 0, 0)
    for name, value in zip(NAMES, PUBLISHED, strict=False):
        b[name] += value  # D(r, B) = value, D(A, B) = 1
        a[name] += value - 1
    ran = step_3(*write_triple(tmp_path, (r, a, b)), "--no_plot", "--json", tmp_path / "t.json")
    mean = json.loads((tmp_path / "t.json").read_text())["results"][0]["transferability"]
    assert mean == pytest.approx(7.7847, abs=1e-4)
    # The published mean was formed before the values were rounded.
    assert mean == pytest.approx(7.79, abs=0.01)
    assert f"Layer-wise transferability:  {PUBLISHED}\n" in ran.stdout
    assert f"Transferability: 7.78 {MEAN_OF_17}\n" in ran.stdout


def test_convolutions_of_a_block_count_alike_and_shortcuts_not_at_all(step_3, tmp_path):
    shapes = {
        "conv1.weight": (2, 2),
        "layer1.0.conv1.weight": (1, 1, 1, 1),
        "layer1.0.conv2.weight": (100, 100),
        "layer1.0.downsample.0.weight": (2, 2, 1, 1),
    }
    r, a, b = ({k: torch.zeros(shape) for k, shape in shapes.items()} for _ in range(3))
    for key, moved in zip(shapes, (1, 1, 3, 50), strict=True):
        a[key] += 10
        b[key] += 10 + moved
    ran = step_3(*write_triple(tmp_path, (r, a, b)), "--no_plot", "--json", tmp_path / "t.json")
    # (11 + 13) / 2 over (1 + 3) / 2
    assert "Layer-wise transferability:  [11.0, 6.0]\n" in ran.stdout
    block = layers_of(tmp_path / "t.json")["layer1.0"]
    assert (block["distance_r_b"], block["distance_a_b"], block["distance_r_a"]) == (12, 2, 10)
    assert block["tensors"] == ["layer1.0.conv1.weight", "layer1.0.conv2.weight"]


def test_sums_are_exact_beyond_float32(step_3, tmp_path):
    # A sum of 2 ** 24 ones and one 0.5 in float32 alone would lose the half.
    size = 2**24 + 1
    half = torch.ones(1, size)
    half[0, -1] = 0.5
    contents = [
        {"conv1.weight": x, "layer1.0.conv1.weight": torch.ones(2, 2) * i}
        for i, x in enumerate((torch.zeros(1, size), half, half + 1))
    ]
    args = write_triple(tmp_path, contents)
    step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert layers_of(tmp_path / "t.json")["conv1"]["distance_r_a"] == (2**24 + 0.5) / size


# Invariants (float64, so that rounding does not blur them)

SHAPES = resnet_shapes()
SEEDS = st.integers(0, 2**32 - 1)


def drawn(seed):
    return [{k: v.double() for k, v in x.items()} for x in triple(SHAPES, seed)]


def values(contents):
    """T of each layer, from dicts."""
    r, a, b = (Checkpoint(Path(f"{i}.pth"), x, "") for i, x in enumerate(contents))
    return [x.transferability for x in measure(r, a, b).layers]


@given(seed=SEEDS, factor=st.floats(1e-3, 1e3), sign=st.sampled_from([1, -1]))
def test_scaling_all_three_leaves_t(seed, factor, sign):
    contents = drawn(seed)
    scaled = [{k: v * factor * sign for k, v in x.items()} for x in contents]
    assert values(scaled) == pytest.approx(values(contents), rel=1e-9)


@given(seed=SEEDS, data=st.data())
def test_order_of_tensors_in_a_file_leaves_t(seed, data):
    contents = drawn(seed)
    shuffled = [{k: x[k] for k in data.draw(st.permutations(list(x)))} for x in contents]
    assert values(shuffled) == values(contents)


@given(seed=SEEDS)
def test_exchanging_r_and_a_inverts_t(seed):
    r, a, b = drawn(seed)
    exchanged = [1 / value for value in values((a, r, b))]
    assert exchanged == pytest.approx(values((r, a, b)), rel=1e-9)


@given(seed=SEEDS, noise=st.floats(-1e6, 1e6), file=st.integers(0, 2))
def test_biases_norms_shortcuts_and_buffers_do_not_matter(seed, noise, file):
    contents = drawn(seed)
    before = values(contents)
    for key, value in contents[file].items():
        if value.ndim == 1 or "downsample" in key:
            value += noise
    contents[file]["bn1.running_mean"] = torch.full((4,), noise)
    contents[file]["bn1.num_batches_tracked"] = torch.tensor(int(noise))
    assert values(contents) == before


# Special values


def test_layer_that_did_not_move_is_infinite_and_left_out(step_3, tmp_path):
    r, a, b = constant_resnet(0, 1, 3)
    b["layer1.1.conv1.weight"] = a["layer1.1.conv1.weight"]
    args = write_triple(tmp_path, (r, a, b))
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert ran.returncode == 0
    assert "[1.5, 1.5, inf, 1.5, " in ran.stdout
    assert "Transferability: 1.50 (mean over 16 of 17 layers;" in ran.stdout
    assert ran.stderr.startswith("warning: layer1.1 did not move in ")
    assert "mean over 16 of 17 layers; not comparable with a full fine-tuning" in ran.stderr
    assert ran.stderr.count("\n") == 1
    still = layers_of(tmp_path / "t.json")["layer1.1"]
    assert (still["transferability"], still["in_mean"]) == ("inf", False)
    assert still["distance_a_b"] == 0


def test_layer_that_never_changed_is_nan_and_left_out(step_3, tmp_path):
    r, a, b = constant_resnet(0, 1, 3)
    a["conv1.weight"] = b["conv1.weight"] = r["conv1.weight"]
    args = write_triple(tmp_path, (r, a, b))
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert "[nan, 1.5, " in ran.stdout
    assert "Transferability: 1.50 (mean over 16 of 17 layers;" in ran.stdout
    assert "warning: conv1 did not move" in ran.stderr
    assert layers_of(tmp_path / "t.json")["conv1"]["transferability"] == "nan"


def test_layer_back_at_theta_r_is_zero_and_counts(step_3, tmp_path):
    r, a, b = constant_resnet(0, 1, 3)
    b["conv1.weight"] = r["conv1.weight"]
    args = write_triple(tmp_path, (r, a, b))
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert "[0.0, 1.5, " in ran.stdout
    assert f"Transferability: 1.41 {MEAN_OF_17}" in ran.stdout
    assert json.loads((tmp_path / "t.json").read_text())["results"][0]["geometric_mean"] == 0


@pytest.mark.parametrize(
    ("r", "a", "b", "message"),
    [
        (0, 0, 3, r"r\.pth and \S*a\.pth hold the same parameters; check -r and -a"),
        (0, 1, 1, r"a\.pth and \S*b\.pth hold the same parameters; check -a and -b"),
    ],
    ids=["r_is_a", "a_is_b"],
)
def test_nothing_moved(r, a, b, message, step_3, tmp_path):
    args = write_triple(tmp_path, constant_resnet(r, a, b))
    assert_refused(step_3(*args, "--no_plot"), message)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("file", ["r", "a", "b"])
def test_number_that_is_not_finite_is_refused_with_file_and_tensor(file, value, step_3, tmp_path):
    contents = triple(resnet_shapes(), 0)
    contents["rab".index(file)]["layer2.0.conv2.weight"][1, 1, 1, 1] = value
    args = write_triple(tmp_path, contents)
    message = rf"{file}\.pth: layer2\.0\.conv2\.weight holds NaN or infinity"
    assert_refused(step_3(*args, "--json", tmp_path / "t.json"), message)
    assert not (tmp_path / "t.json").exists()


def test_infinity_of_one_sign_in_all_files_is_refused(step_3, tmp_path):
    contents = constant_resnet(0, 1, 3)
    for content in contents:
        content["conv1.weight"][0, 0] = math.inf
    args = write_triple(tmp_path, contents)
    assert_refused(step_3(*args, "--no_plot"), r"r\.pth: conv1\.weight holds NaN or infinity")


@pytest.mark.parametrize(
    "key",
    ["bn1.running_var", "bn1.bias", "layer1.0.downsample.0.weight", "fc.weight", "fc.bias"],
)
def test_nan_in_a_tensor_that_does_not_count_is_no_matter(key, step_3, tmp_path):
    contents = triple(resnet_shapes(), 0)
    plain = step_3(*write_triple(tmp_path, contents), "--no_plot")
    for content in contents:
        content[key] = torch.full_like(content.get(key, torch.zeros(4)), math.nan)
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    assert (ran.returncode, ran.stdout) == (0, plain.stdout)
    for file, line in zip("arb", ran.stderr.splitlines(), strict=False):
        assert line.startswith(f"warning: {tmp_path / file}.pth: {key} holds NaN or infinity;")


# Classifiers


@pytest.mark.parametrize("classes", [(1000, 10), (1000, 1), (10, 10), (1, 1)])
def test_classifier_of_any_size_is_one_by_construction(classes, step_3, tmp_path):
    r, a, b = constant_resnet(0, 1, 3)
    r["fc.weight"] = a["fc.weight"] = torch.zeros(classes[0], 2)
    b["fc.weight"] = torch.ones(classes[1], 2)
    args = write_triple(tmp_path, (r, a, b))
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0].endswith(" 1.5, 1.0]")
    assert f"Transferability: 1.50 {MEAN_OF_17}" in ran.stdout
    assert layers_of(tmp_path / "t.json")["fc"] == {
        "name": "fc",
        "tensors": ["fc.weight"],
        "distance_r_b": None,
        "distance_a_b": None,
        "distance_r_a": None,
        "transferability": 1.0,
        "in_mean": False,
        **dict.fromkeys(COMPANIONS),
    }


@pytest.mark.parametrize(("without", "count"), [("b", 17), ("rab", 17), ("ra", 18)])
def test_files_without_a_classifier(without, count, step_3, tmp_path):
    contents = constant_resnet(0, 1, 3)
    for file in without:
        del contents["rab".index(file)]["fc.weight"]
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    assert (ran.returncode, ran.stderr) == (0, "")
    listed = re.search(r"\[(.*)\]", ran.stdout)[1].split(", ")
    assert listed == ["1.5"] * 17 + ["1.0"] * (count - 17)
    ending = "" if count == 17 else "; the classifier is new and left out"
    assert f"Transferability: 1.50 (mean over 17 layers{ending})\n" in ran.stdout


# Networks that do not fit


def test_different_architectures_are_named(step_3, tmp_path):
    r, a, _ = triple(resnet_shapes((2, 2, 2, 2), width=64, convolutions=2, classes=2), 0)
    _, _, b = triple(resnet_shapes((3, 4, 6, 3), width=8), 0)
    args = write_triple(tmp_path, (r, a, b))
    assert_refused(
        step_3(*args, "--no_plot"),
        r"a\.pth \(resnet18\) and \S+b\.pth \(resnet50_w8\) are different networks",
        r"conv1\.weight has the shape \[64, 3, 7, 7\] .* and \[8, 3, 7, 7\]",
    )


@pytest.mark.parametrize("file", ["r", "b"])
def test_tensor_that_is_missing_is_named(file, step_3, tmp_path):
    contents = triple(resnet_shapes(), 0)
    del contents["rab".index(file)]["layer3.0.conv2.weight"]
    args = write_triple(tmp_path, contents)
    message = (
        rf"layer3\.0\.conv2\.weight \[16, 16, 3, 3\] of \S+a\.pth is missing in \S+{file}\.pth"
    )
    assert_refused(step_3(*args, "--no_plot"), message)


def test_tensor_that_only_b_has_is_named(step_3, tmp_path):
    r, a, b = triple(resnet_shapes(), 0)
    b["layer4.1.conv1.weight"] = torch.zeros(32, 128, 1, 1)
    args = write_triple(tmp_path, (r, a, b))
    message = r"layer4\.1\.conv1\.weight \[32, 128, 1, 1\] of \S+b\.pth is missing in \S+a\.pth"
    assert_refused(step_3(*args, "--no_plot"), message)


def test_tensor_of_another_shape_is_named_with_both(step_3, tmp_path):
    r, a, b = triple(resnet_shapes(), 0)
    b["layer4.0.conv2.weight"] = torch.zeros(32, 32, 1, 1)
    args = write_triple(tmp_path, (r, a, b))
    message = r"layer4\.0\.conv2\.weight has the shape \[32, 32, 3, 3\] .* and \[32, 32, 1, 1\]"
    assert_refused(step_3(*args, "--no_plot"), message)


def test_files_without_a_key_in_common_are_refused(step_3, tmp_path):
    r, a, b = triple(resnet_shapes(), 0)
    b = {f"{key}_g".replace("weight_g", "g.weight"): value for key, value in b.items()}
    args = write_triple(tmp_path, (r, a, b))
    assert_refused(step_3(*args, "--no_plot"), "none of the 13 weights .* such as conv1.g.weight")


def test_network_of_no_known_family_has_a_layer_per_weight(step_3, tmp_path):
    names = ["stem.weight", "body.weight", "end.weight"]
    r, a, b = constant_triple(names)
    b["end.weight"] = torch.zeros(7, 2)
    ran = step_3(*write_triple(tmp_path, (r, a, b)), "--no_plot", "--json", tmp_path / "t.json")
    assert "Layer-wise transferability:  [1.5, 1.5, 1.0]\n" in ran.stdout
    assert "grouping is generic" in ran.stderr
    assert list(layers_of(tmp_path / "t.json")) == names


# The command line


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["--num_classes", "0"], "must be a whole number of at least 1, not '0'"),
        (["--num_classes", "7"], r"b\.pth has a classifier .*10.*, not 7"),
        (["--arch", "resnet51"], "invalid choice: 'resnet51'"),
        (["--json", "none/t.json"], r"none/t\.json: the folder none does not exist; create it"),
        (["--plot", "none/t.png"], r"none/t\.png: the folder none does not exist; create it"),
        (["--csv", "none/t.csv"], r"none/t\.csv: the folder none does not exist; create it"),
        (["--json", "."], "it is a folder; give a file name"),
        (["--json", os.devnull], "it is no regular file"),
    ],
)
def test_bad_option(extra, message, files, step_3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_refused(step_3(*files, *extra), message)
    assert sorted(os.listdir()) == ["a.pth", "b.pth", "r.pth"]


@pytest.mark.parametrize("missing", ["-r", "-a", "-b"])
def test_missing_option_is_named(missing, files, step_3):
    i = files.index(missing)
    assert_refused(
        step_3(*files[:i], *files[i + 2 :]),
        f"{missing} missing: give all of -r, -a and -b, or none",
    )


def test_error_in_a_process_of_its_own(tmp_path):
    args = write_triple(tmp_path, constant_resnet(0, 1, 3))
    ran = run_script("cal_transferability.py", *args[:4], "-b", "./no.pth", cwd=tmp_path)
    assert_refused(ran, r"checkpoint \S*no\.pth is missing")


def test_help_has_a_group_of_the_task_and_one_of_the_output(capsys):
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    text = capsys.readouterr().out
    task, output = text.partition("\ntask:\n")[2].split("\noutput:\n")
    for options, group in (
        ("-r -a -b --arch --subtree --num_classes --head --ignore --group", task),
        ("--per_tensor --json --csv --plot --no_plot --panels --show", output),
    ):
        assert re.findall(r"^  (-\w|--\w+) ", group, re.MULTILINE) == options.split()
    assert "without -r, -a and -b: the shipped files" in task
    assert "(default: NAME_transferability.png beside -b)" in output
    assert not re.search(r"default: (None|False)", text)


def test_number_of_classes_that_fits_is_accepted(files, step_3):
    assert step_3(*files, "--no_plot", "--num_classes", "10").returncode == 0


def test_neither_torchvision_nor_pyplot_is_imported(files, tmp_path):
    """matplotlib itself is needed for the figure, and for nothing else."""
    script = [sys.executable, "-X", "importtime", ROOT / "cal_transferability.py", *files]
    for options, allowed in (["--no_plot"], set()), ([], {"matplotlib"}):
        ran = subprocess.run([*script, *options], cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-500:]
        modules = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
        assert {"torch", "models.checkpoint"} <= modules
        assert modules.isdisjoint({"torchvision", "matplotlib.pyplot"})
        assert {"matplotlib"} & modules == allowed


# Where bare names are


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The folder ckpt/ beside the scripts, and the current folder: both empty."""
    ckpt, here = tmp_path / "ckpt", tmp_path / "here"
    ckpt.mkdir()
    here.mkdir()
    monkeypatch.setattr(paths, "CKPT_DIR", ckpt)
    monkeypatch.chdir(here)
    return ckpt, here


def test_bare_name_is_in_ckpt_then_here(folders, step_3):
    ckpt, here = folders
    write_triple(ckpt, constant_resnet(0, 1, 3))
    args = ["-r", "r.pth", "-a", "a.pth", "-b", "b.pth", "--no_plot"]
    assert "Transferability: 1.50 " in step_3(*args).stdout
    write_triple(here, constant_resnet(0, 1, 1.25))
    assert "Transferability: 1.50 " in step_3(*args).stdout
    (ckpt / "b.pth").unlink()
    assert "Transferability: 5.00 " in step_3(*args).stdout


def test_name_with_a_folder_is_taken_as_it_stands(folders, step_3):
    ckpt, here = folders
    write_triple(ckpt, constant_resnet(0, 1, 3))
    write_triple(here, constant_resnet(0, 1, 1.25))
    args = ["-r", "./r.pth", "-a", "../here/a.pth", "-b", "./b.pth", "--no_plot"]
    assert "Transferability: 5.00 " in step_3(*args).stdout
    (here / "b.pth").unlink()
    assert_refused(step_3(*args), r"b\.pth is missing")


def test_figure_of_a_bare_name_is_beside_the_file(folders, step_3):
    ckpt, here = folders
    write_triple(ckpt, constant_resnet(0, 1, 3))
    ran = step_3("-r", "r.pth", "-a", "a.pth", "-b", "b.pth")
    assert ran.stdout.splitlines()[-1] == str(ckpt / "b_transferability.png")
    assert (ckpt / "b_transferability.png").is_file()
    assert not list(here.iterdir())


# What is written


def test_json_is_complete_and_unrounded(files, step_3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = step_3(*files, "--no_plot", "--json", "t.json")
    assert ran.stdout.splitlines()[-1] == str(tmp_path / "t.json")
    found = json.loads((tmp_path / "t.json").read_text())
    assert list(found) == ["arch", "r", "a", "r_is_substitute", "results"]
    assert (found["r"], found["a"]) == (str(tmp_path / "r.pth"), str(tmp_path / "a.pth"))
    assert found["r_is_substitute"] is False
    (result,) = found["results"]
    of_file = "rotation t_angle left_of_r left_of_r_predicted shrinkage shrinkage_predicted"
    means = ["transferability", "geometric_mean", *of_file.split()]
    assert list(result) == ["b", *means, "layers"]
    assert (result["left_of_r_predicted"], result["shrinkage_predicted"]) == (None, None)
    assert result["b"] == str(tmp_path / "b.pth")
    names = ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    *layers, head = result["layers"]
    assert [x["name"] for x in [*layers, head]] == [*names, "fc"]
    for x in layers:
        assert list(x) == [
            "name",
            "tensors",
            "distance_r_b",
            "distance_a_b",
            "distance_r_a",
            "transferability",
            "in_mean",
            *COMPANIONS,
        ]
        assert x["transferability"] == x["distance_r_b"] / x["distance_a_b"]
        assert x["in_mean"] is True
    found = [x["transferability"] for x in layers]
    assert result["transferability"] == pytest.approx(sum(found) / 5, rel=1e-12)
    assert result["geometric_mean"] == pytest.approx(math.prod(found) ** 0.2, rel=1e-12)
    listed = ", ".join(str(round(value, 2)) for value in [*found, 1.0])
    assert f"Layer-wise transferability:  [{listed}]\n" in ran.stdout


def test_csv_has_a_row_per_file_and_layer(files, step_3, tmp_path):
    step_3(*files, "--no_plot", "--csv", tmp_path / "t.csv", "--json", tmp_path / "t.json")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    layers = list(layers_of(tmp_path / "t.json").values())
    assert [row["layer"] for row in rows] == [x["name"] for x in layers]
    assert [row["block"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert {row["b"] for row in rows} == {str(tmp_path / "b.pth")}
    assert [float(row["transferability"]) for row in rows] == [x["transferability"] for x in layers]
    assert (rows[-1]["distance_r_b"], rows[-1]["in_mean"]) == ("", "False")


def test_per_tensor_lists_every_counted_weight(files, step_3, tmp_path):
    ran = step_3(*files, "--no_plot", "--per_tensor", "--json", tmp_path / "t.json")
    tensors = json.loads((tmp_path / "t.json").read_text())["results"][0]["tensors"]
    counted = [key for key, shape in SHAPES if len(shape) == 4 and "downsample" not in key]
    assert [x["name"] for x in tensors] == counted
    lines = ran.stdout.splitlines()
    for line, x in zip(lines, tensors, strict=False):
        assert line.split()[:3] == [x["name"], "T", f"{x['transferability']:.2f}"]
    # Columns stand below each other.
    assert len({line.index(" T ") for line in lines[: len(tensors)]}) == 1
    assert lines[len(tensors)].startswith("Layer-wise transferability:  [")


def test_several_files_have_a_block_each_and_one_figure(files, step_3, tmp_path):
    second = tmp_path / "c.pth"
    torch.save(triple(resnet_shapes(), 0, num_classes=3)[2], second)
    ran = step_3(*files, second, "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    results = json.loads((tmp_path / "t.json").read_text())["results"]
    assert [x["b"] for x in results] == [str(tmp_path / "b.pth"), str(second)]
    lines = ran.stdout.splitlines()
    for name in ("b.pth", "c.pth"):
        start = lines.index(f"{tmp_path / name}:")
        assert lines[start + 1].startswith("Layer-wise transferability:  [")
        assert lines[start + 2].startswith("Transferability: ")
    assert [path.name for path in tmp_path.glob("*.png")] == ["b_transferability.png"]


def test_file_that_cannot_be_measured_does_not_stop_the_others(files, step_3, tmp_path):
    *first, b = files
    ran = step_3(*first, tmp_path / "no.pth", b, tmp_path / "nor.pth", "--no_plot")
    assert ran.returncode == 1
    assert ran.stdout.count("Layer-wise transferability:  [") == 1
    errors = re.findall(r"error: checkpoint \S+/(\w+\.pth) is missing", ran.stderr)
    assert errors == ["no.pth", "nor.pth"]


def test_none_of_several_files_can_be_measured(files, step_3, tmp_path):
    ran = step_3(*files[:-1], tmp_path / "no.pth", tmp_path / "nor.pth", "--no_plot")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("error: checkpoint ") == 2


@pytest.mark.parametrize(
    ("name", "start"),
    [("t.png", b"\x89PNG\r\n\x1a\n"), ("t.pdf", b"%PDF"), ("t.svg", b"<?xml"), ("t", b"\x89PNG")],
)
def test_plot_is_of_the_kind_that_its_name_says(name, start, files, step_3, tmp_path):
    ran = step_3(*files, "--plot", tmp_path / name)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == str(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert not (tmp_path / "b_transferability.png").exists()


def test_plot_of_an_unknown_kind_is_refused(files, step_3, tmp_path):
    ran = step_3(*files, "--plot", tmp_path / "t.doc")
    assert ran.returncode == 1
    assert "Layer-wise transferability:  [" in ran.stdout
    assert re.fullmatch(r"error: .*t\.doc: no such format; one of .*png.*\n", ran.stderr)
    assert not (tmp_path / "t.doc").exists()


def test_no_plot_writes_nothing(files, step_3, tmp_path):
    step_3(*files, "--no_plot")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth", "b.pth", "r.pth"]


def test_figure_shows_all_blocks_with_the_axes_of_the_paper(files, step_3, tmp_path, figures):
    # Dollar signs would be read as a formula.
    name = tmp_path / r"$\b$.pth"
    os.rename(files[-1], name)
    ran = step_3(*files[:-1], name, "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    (axes,) = figures[0].axes
    values = [x["transferability"] for x in layers_of(tmp_path / "t.json").values()]
    line, head = axes.lines[:2]
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(line.get_ydata()) == values[:-1]
    # The classifier is a point of its own, hollow and not joined to the curve.
    assert (list(head.get_xdata()), list(head.get_ydata())) == ([6], [1.0])
    assert (head.get_linestyle(), head.get_markerfacecolor()) == ("None", "white")
    names = ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "fc (new)"]
    assert [text.get_text() for text in axes.get_xticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Block", r"$T_{FB}(\theta_A)$")
    assert r"$\b$" in axes.get_title()


@pytest.mark.parametrize(
    ("options", "written"),
    [
        (["--show"], ["b_transferability.png"]),
        (["--show", "--plot", "t.svg"], ["t.svg"]),
        (["--show", "--no_plot"], []),
    ],
)
def test_figure_is_shown_in_a_window(options, written, files, step_3, tmp_path, monkeypatch):
    """Where it is written, too, it is there before the window opens."""
    from matplotlib import pyplot

    shown = []

    def show():
        (axes,) = pyplot.gcf().axes
        shown.append((len(axes.get_xticks()), axes.get_xlabel(), sorted(found())))

    def found():
        return {path.name for path in tmp_path.iterdir()} - {"r.pth", "a.pth", "b.pth"}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pyplot, "show", show)
    try:
        ran = step_3(*files, *options)
    finally:
        pyplot.close("all")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert shown == [(6, "Block", written)]
    assert ran.stdout.splitlines()[3:] == [str(tmp_path / name) for name in written]


def test_numbers_are_printed_before_the_figure_fails(files, step_3, tmp_path, monkeypatch):
    """A figure that was there is still there, and nothing else is left."""
    old = tmp_path / "b_transferability.png"
    old.write_bytes(b"old")

    def fail(figure, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail)
    ran = step_3(*files)
    assert ran.returncode == 1
    assert "Layer-wise transferability:  [" in ran.stdout
    assert re.fullmatch(r"error: cannot write \S+\.png: No space left.*untouched\n", ran.stderr)
    assert old.read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a.pth", "b.pth", old.name, "r.pth"]


# The record of the training run beside the file


def test_record_beside_b_is_told(files, step_3, tmp_path):
    write_record(tmp_path / "b.pth", parent_sha256=sha256(tmp_path / "a.pth"))
    write_record(tmp_path / "a.pth", parent_sha256=sha256(tmp_path / "r.pth"))
    ran = step_3(*files, "--no_plot")
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[3] == (
        "Fine-tuning: 3910 steps in 10 epochs, best epoch kept (7), training loss 0.1235, "
        "validation accuracy 81.25 %"
    )


@pytest.mark.parametrize(("child", "parent"), [("a", "r"), ("b", "a")])
def test_file_trained_from_another_is_warned_of(child, parent, files, step_3, tmp_path):
    write_record(tmp_path / f"{child}.pth", parent_sha256="0" * 64)
    ran = step_3(*files, "--no_plot")
    assert ran.returncode == 0
    assert re.fullmatch(
        rf"warning: \S+{child}\.pth was not trained from \S+{parent}\.pth .*\n", ran.stderr
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is not the record of a training run; it is ignored"),
        ("{", "is not the record of a training run; it is ignored"),
        ("[" * 100_000, "is not the record of a training run; it is ignored"),
        ({"steps": math.inf}, "is not the record of a training run; it is ignored"),
        ({"val_acc": "high"}, "is not the record of a training run; it is ignored"),
        ({"sha256": "0" * 64}, r"is the record of another file than \S+b\.pth"),
    ],
)
def test_record_that_says_nothing_is_warned_of_once(text, message, files, step_3, tmp_path):
    if isinstance(text, dict):
        write_record(tmp_path / "b.pth", **text)
    else:
        (tmp_path / "b.json").write_text(text)
    ran = step_3(*files, "--no_plot")
    assert ran.returncode == 0
    assert "Fine-tuning:" not in ran.stdout
    assert re.fullmatch(rf"warning: \S+b\.json {message}.*\n", ran.stderr)


# Names that are not ASCII


@pytest.mark.filterwarnings("error")
def test_names_are_printed_as_they_are_and_drawn_as_far_as_the_font_goes(
    files, step_3, tmp_path, figures
):
    names = ("K\u00e4fer", "\u6570\u636e $x$", "tab\t")
    for i, name in enumerate(names):
        moved = {k: v * (1 + i / 100) for k, v in torch.load(files[-1]).items()}
        torch.save(moved, tmp_path / f"{name}.pth")
    paths = [str(tmp_path / f"{name}.pth") for name in names]
    ran = step_3(*files[:4], "-b", *paths, "--plot", tmp_path / "\u56fe.png")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert f"{paths[1]}:" in ran.stdout.splitlines()
    assert ran.stdout.splitlines()[-1] == str(tmp_path / "\u56fe.png")
    legend = [text.get_text().split(",")[0] for text in figures[0].axes[0].get_legend().get_texts()]
    assert legend == ["K\u00e4fer", r"\u6570\u636e $x$", r"tab\t"]


@pytest.mark.filterwarnings("error")
def test_every_text_of_a_figure_is_of_characters_that_its_font_has(tmp_path):
    figure, (axes,) = plot.make_figure(1)
    axes.plot([0, 1], [1, 2], label="\u732b")
    axes.set_xticks([0, 1], ["V\u00f6gel", "\u732b"], rotation=90)
    axes.set_title(os.fsdecode(b"\xff \xce\xb8"))
    axes.set_ylabel(plot.T_LABEL)
    axes.text(0, 1, "two\nlines")
    axes.legend()
    plot.save_figure(figure, tmp_path / "t.png")
    labels = axes.get_xticklabels()
    assert [label.get_text() for label in labels] == ["V\u00f6gel", r"\u732b"]
    assert [label.get_rotation() for label in labels] == [90, 90]
    assert axes.get_title() == "\\udcff \u03b8"
    assert axes.get_ylabel() == plot.T_LABEL
    assert axes.texts[0].get_text() == "two\nlines"
    assert axes.get_legend().get_texts()[0].get_text() == r"\u732b"
