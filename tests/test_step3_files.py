"""Step 3 on the files that people have: other networks and dialects, several files, seeds of one
experiment, substitutes, archives in parts, doubtful triples, and outputs that would destroy inputs.
"""

import csv
import gc
import importlib.util
import itertools
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import weakref

import matplotlib.figure
import matplotlib.image
import numpy as np
import pytest
import torch
import torchvision
from archives import INFO_ZIP, contents, make, store
from checkpoints import (
    ROOT,
    assert_refused,
    constant_triple,
    old_densenet_key,
    resnet_shapes,
    timm_key,
    triple,
    write_record,
    write_triple,
)

from measurement.checks import rounding_step
from models import build, checkpoint, paths
from safe_io import sha256

NAMES = ["conv1.weight", "layer1.0.conv1.weight"]


def results_of(path):
    return json.loads(path.read_text())["results"]


def values_of(result):
    return [x["transferability"] for x in result["layers"]]


# Networks


def few_channels(model):
    """(name, shape) of the parameters of a network, in which 1000 classes become 3."""
    return [
        (name, tuple(n if n <= 3 else 2 + n % 3 for n in p.shape))
        for name, p in model.named_parameters()
    ]


def shapes_of(arch):
    with torch.device("meta"):
        return few_channels(build(arch))


def by_hand(contents, layers):
    """T of every layer, each a list of keys, without the code under test."""
    values = []
    for keys in layers:
        distances = {}
        for name, x in zip("ra", contents[:2], strict=True):
            means = [
                np.abs(x[key].numpy().astype(float) - contents[2][key].numpy().astype(float)).mean()
                for key in keys
            ]
            distances[name] = sum(means) / len(means)
        values.append(distances["r"] / distances["a"])
    return values


def resnet_layers(convolutions):
    yield ["conv1.weight"]
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            yield [f"layer{stage}.{block}.conv{i + 1}.weight" for i in range(convolutions)]


def densenet_layers():
    yield ["features.conv0.weight"]
    for block, count in enumerate((6, 12, 24, 16), start=1):
        for i in range(1, count + 1):
            start = f"features.denseblock{block}.denselayer{i}"
            yield [f"{start}.conv1.weight", f"{start}.conv2.weight"]
        if block < 4:
            yield [f"features.transition{block}.conv.weight"]


def vit_layers():
    for i in range(12):
        start = f"encoder.layers.encoder_layer_{i}."
        attention = [start + "self_attention.in_proj_weight"]
        attention.append(start + "self_attention.out_proj.weight")
        yield [*attention, start + "mlp.0.weight", start + "mlp.3.weight"]


# Layers by hand, the head, and the number of points in the paper's figure.
PAPER = {
    "densenet121": (list(densenet_layers()), "classifier", 63),
    "resnet34": (list(resnet_layers(2)), "fc", 18),
    "resnext50_32x4d": (list(resnet_layers(3)), "fc", 18),
    "wide_resnet50_2": (list(resnet_layers(3)), "fc", 18),
    "vit_small": (list(vit_layers()), "heads.head", 12),
}
DIALECTS = {"densenet121": old_densenet_key, "vit_small": timm_key}


@pytest.mark.parametrize(
    ("arch", "other"),
    [
        *((arch, "") for arch in PAPER),
        *itertools.product(DIALECTS, ["rab", "b", "ra", "r", "a"]),
    ],
)
def test_layers_equal_a_loop_by_hand_in_every_dialect(arch, other, step_3, tmp_path):
    """other: the files that are written in timm's keys, or in torchvision's former ones."""
    layers, head, count = PAPER[arch]
    contents = triple(shapes_of(arch), 1, head=(f"{head}.weight", f"{head}.bias"), num_classes=5)
    written = [
        {DIALECTS[arch](key): value for key, value in x.items()} if name in other else x
        for name, x in zip("rab", contents, strict=True)
    ]
    assert (written[0] == contents[0]) == ("r" not in other)
    args = write_triple(tmp_path, written)
    ran = step_3(*args, "--no_plot", "--num_classes", "5", "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    (result,) = results_of(tmp_path / "t.json")
    expected = by_hand(contents, layers)
    new = [1.0] if arch != "vit_small" else []
    assert values_of(result) == pytest.approx([*expected, *new], rel=1e-5)
    assert len(result["layers"]) == count
    assert result["transferability"] == pytest.approx(statistics.fmean(expected), rel=1e-5)
    ending = "; the classifier is new and left out" if new else ""
    assert f" (mean over {len(layers)} layers{ending})\n" in ran.stdout


def test_networks_without_blocks_are_grouped_by_weight_and_it_is_said(step_3, tmp_path):
    shapes = shapes_of("vgg11")
    contents = triple(shapes, 1, head=("classifier.6.weight", "classifier.6.bias"), num_classes=5)
    args = write_triple(tmp_path, contents)
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert re.fullmatch(
        r"warning: \S+a\.pth .* grouping is generic, .* \(classifier\.6\) .*\n", ran.stderr
    )
    (result,) = results_of(tmp_path / "t.json")
    keys = [k for k, shape in shapes if len(shape) > 1 and k.endswith("weight")]
    assert [x["name"] for x in result["layers"]] == keys
    expected = by_hand(contents, [[key] for key in keys[:-1]])
    assert values_of(result) == pytest.approx([*expected, 1.0], rel=1e-5)


@pytest.fixture
def googlenet():
    with torch.device("meta"):
        model = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    heads = [f"{x}.{y}" for x in ("aux1.fc2", "aux2.fc2", "fc") for y in ("weight", "bias")]
    return triple(few_channels(model), 1, head=heads, num_classes=5)


def test_auxiliary_classifiers_are_left_out_and_said(googlenet, step_3, tmp_path):
    args = write_triple(tmp_path, googlenet)
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert ran.returncode == 0
    said = "warning: auxiliary classifiers are left out: aux1.conv.conv.weight, aux1.fc1.weight, "
    assert ran.stderr.startswith(said)
    layers = results_of(tmp_path / "t.json")[0]["layers"]
    names = [x["name"] for x in layers]
    assert (names[-1], layers[-1]["in_mean"]) == ("fc.weight", False)
    assert names[0] == "stem"
    assert [name[:9] for name in names[1:-1]] == ["inception"] * 9


@pytest.mark.parametrize("lacking", ["b", "rb", "r"])
def test_auxiliary_branches_that_only_a_has_do_not_stop_it(lacking, googlenet, step_3, tmp_path):
    """Public weights have them; what is fine-tuned from these has not."""
    r, a, b = googlenet
    r, b = (
        {k: v for k, v in x.items() if name not in lacking or not k.startswith("aux")}
        for name, x in (("r", r), ("b", b))
    )
    args = write_triple(tmp_path, (r, a, b))
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert ran.returncode == 0, ran.stderr
    assert "auxiliary classifiers are left out: aux1." in ran.stderr
    names = [x["name"] for x in results_of(tmp_path / "t.json")[0]["layers"]]
    assert len(names) == 11
    assert not any(name.startswith("aux") for name in names)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (torch.eye(3).to_sparse_csr(), "sparse_csr"),
        (torch.zeros(2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "float4_e2m1fn_x2"),
    ],
)
def test_weight_that_cannot_be_compared_is_an_error(value, type_, step_3, tmp_path):
    contents = constant_triple(NAMES)
    for x in contents:
        x["mask"] = torch.eye(3).to_sparse()
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("Layer-wise transferability:  [1.5, 1.5]\n")
    contents[2]["packed.weight"] = value
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    assert_refused(ran, rf"b\.pth: packed\.weight is {type_}; dequantise the file first")


@pytest.mark.parametrize("key", ["layer{}.0.conv1.weight", "layer1.{}.conv1.weight"])
def test_number_in_a_key_that_python_refuses_to_read(key, step_3, tmp_path):
    contents = constant_triple([*NAMES, key.format("9" * 5000)])
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    assert (ran.returncode, ran.stderr.count("\n")) == (0, 1)
    assert "a.pth: not a part of" in ran.stderr


def test_patch_embedding_without_dimensions_is_no_matter(step_3, tmp_path):
    contents = constant_triple([key for keys in vit_layers() for key in keys])
    for x in contents:
        x["conv_proj.weight"] = torch.tensor(1.0)
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "(mean over 12 layers)" in ran.stdout


@pytest.mark.parametrize(("r", "b"), [(1e300, 1e-300), (1e200, 1e-100)])
def test_t_beyond_all_numbers_is_an_error(r, b, step_3, tmp_path):
    contents = constant_triple(NAMES, r, 0.0, b, dtype=torch.float64)
    ran = step_3(*write_triple(tmp_path, contents), "--json", tmp_path / "t.json")
    assert_refused(ran, r"b\.pth hardly differs from \S+a\.pth: T is too large")
    assert not (tmp_path / "t.json").exists()


# Several files


@pytest.fixture
def several(files, tmp_path):
    """The arguments for r and A, and three files of B."""
    paths = [files[-1], tmp_path / "c.pth", tmp_path / "d.pth"]
    for i, path in enumerate(paths):
        torch.save(triple(resnet_shapes(), 0, num_classes=3 + i)[2], path)
        if i:
            content = torch.load(path)
            content["conv1.weight"] += 0.01 * i
            torch.save(content, path)
    return files[:4], paths


def test_every_file_is_measured_as_if_alone(several, step_3, tmp_path):
    first, paths = several
    ran = step_3(*first, "-b", *paths, "--no_plot", "--json", tmp_path / "t.json")
    results = results_of(tmp_path / "t.json")
    assert (ran.returncode, ran.stderr, len(results)) == (0, "", 3)
    for path, result in zip(paths, results, strict=True):
        alone = step_3(*first, "-b", path, "--no_plot", "--json", tmp_path / "u.json")
        assert results_of(tmp_path / "u.json") == [result]
        block = alone.stdout.removesuffix(f"{tmp_path / 'u.json'}\n")
        assert f"{path}:\n{block}" in ran.stdout
    assert len({result["transferability"] for result in results}) == 3


def test_table_has_a_row_per_file(several, step_3, tmp_path):
    first, paths = several
    write_record(paths[1], steps=77, val_acc=12.345, parent_sha256=sha256(first[3]))
    ran = step_3(*first, "-b", *paths, "--no_plot", "--json", tmp_path / "t.json")
    header, *rows = ran.stdout.splitlines()[-5:-1]
    assert header.split() == "file T geometric T_angle rotation layers steps val_acc".split()
    told = [["-", "-"], ["77", "12.35"], ["-", "-"]]
    for path, row, result, end in zip(
        paths, rows, results_of(tmp_path / "t.json"), told, strict=True
    ):
        keys = ("transferability", "geometric_mean", "t_angle", "rotation")
        means = [f"{result[key]:.2f}" for key in keys]
        assert row.split() == [str(path), *means, "5", *end]
        assert len(row) == len(header)


BAD = {
    "text": lambda path: path.write_text("hello\n"),
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "other": lambda path: torch.save({"conv1.weight": torch.zeros(2, 3)}, path),
    "nan": lambda path: torch.save(
        {k: v * math.nan for k, v in triple(resnet_shapes(), 0)[2].items()}, path
    ),
    "a": lambda path: shutil.copy(path.with_name("a.pth"), path),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_file_is_named_and_the_others_are_measured(bad, several, step_3, tmp_path, figures):
    first, (b, c, d) = several
    c.unlink()
    BAD[bad](c)
    ran = step_3(*first, "-b", b, c, d, "--json", tmp_path / "t.json", "--csv", tmp_path / "t.csv")
    assert ran.returncode == 1
    assert re.fullmatch(r"error: [ -~]*\bc\.pth[ -~]*\n", ran.stderr)
    assert [x["b"] for x in results_of(tmp_path / "t.json")] == [str(b), str(d)]
    assert {row["b"] for row in csv.DictReader((tmp_path / "t.csv").open())} == {str(b), str(d)}
    assert len(figures[0].axes[0].get_legend().get_texts()) == 2


@pytest.mark.parametrize("flag", ["-r", "-a"])
def test_bad_r_or_a_stops_everything(flag, several, step_3):
    first, paths = several
    first[first.index(flag) + 1].write_text("hello\n")
    assert_refused(step_3(*first, "-b", *paths), "is not a PyTorch checkpoint")


def test_r_of_another_network_is_told_once(several, step_3):
    first, paths = several
    torch.save(triple(resnet_shapes(width=8), 0)[0], first[1])
    ran = step_3(*first, "-b", *paths)
    assert_refused(ran, r"a\.pth .* and \S+r\.pth .* are different networks")


@pytest.mark.parametrize("where", ["folder", "ckpt", "here"])
@pytest.mark.parametrize("name", ["project", "a [1] project"])
def test_shell_pattern_is_looked_for_where_a_name_is(where, name, step_3, tmp_path, monkeypatch):
    """A folder whose own name looks like a pattern is no hindrance."""
    ckpt, here = tmp_path / name / "ckpt", tmp_path / "here"
    for folder in (ckpt, here):
        folder.mkdir(parents=True)
    monkeypatch.setattr(paths, "CKPT_DIR", ckpt)
    monkeypatch.chdir(here)
    folder = here if where == "here" else ckpt
    contents = triple(resnet_shapes(), 0)
    args = write_triple(folder, contents, names=("r.pth", "a.pth", "seed_10.pth"))
    for seed in ("2", "[0]"):
        torch.save(contents[2], folder / f"seed_{seed}.pth")
    args = args[:4] if where == "folder" else ["-r", "r.pth", "-a", "a.pth"]
    start = "../*/ckpt/" if where == "folder" else ""
    found = step_3(*args, "-b", f"{start}seed_[0-9]*.pth", "--no_plot", "--json", "t.json")
    assert (found.returncode, found.stderr) == (0, "")
    names = [checkpoint.Path(x["b"]).name for x in results_of(here / "t.json")]
    assert names == ["seed_10.pth", "seed_2.pth"]
    # A file of the very name is meant itself.
    start = f"{folder}/" if where == "folder" else ""
    found = step_3(*args, "-b", f"{start}seed_[0].pth", "--no_plot", "--json", "t.json")
    assert results_of(here / "t.json")[0]["b"].endswith("seed_[0].pth")


def test_pattern_without_a_match_is_an_error_before_anything_is_read(several, step_3, tmp_path):
    first, paths = several
    assert_refused(
        step_3(*first, "-b", *paths, tmp_path / "none_*.pth"), r"no file matches \S+none_\*\.pth"
    )


def test_file_named_twice_is_measured_once(several, step_3, tmp_path):
    first, paths = several
    ran = step_3(*first, "-b", paths[1], tmp_path / "[bcd].pth", "--no_plot")
    assert ran.stdout.count("Layer-wise transferability:  [") == 3


def test_r_and_a_are_read_once_and_no_b_stays_in_memory(several, step_3, monkeypatch):
    """A bad file in between does not keep its parameters either."""
    first, (b, c, d) = several
    torch.save({"conv1.weight": torch.zeros(2, 3)}, c)
    read, living, counts = [], [], []
    original = checkpoint.read

    def watched(path, **options):
        gc.collect()
        counts.append(sum(ref() is not None for ref in living))
        read.append(path)
        result = original(path, **options)
        if path in (b, c, d):
            living.extend(weakref.ref(tensor) for tensor in result.tensors.values())
        return result

    monkeypatch.setattr(checkpoint, "read", watched)
    ran = step_3(*first, "-b", b, c, d, "--no_plot")
    assert ran.returncode == 1
    assert sorted(read) == sorted([first[1], first[3], b, c, d])
    assert len(living) > 50
    assert counts == [0] * 5


def test_every_file_is_partitioned_once(files, step_3, monkeypatch):
    shapes = []
    original = checkpoint.partition
    monkeypatch.setattr(
        checkpoint, "partition", lambda x, *a, **k: shapes.append(x) or original(x, *a, **k)
    )
    assert step_3(*files, "--no_plot", "--per_tensor", "--num_classes", "10").returncode == 0
    assert len(shapes) == 3


def test_figure_has_one_panel_for_all_files(several, step_3, tmp_path, figures):
    first, paths = several
    write_record(paths[0], args={"dataset": "CIFAR-10"})
    step_3(*first, "-b", *paths, "--json", tmp_path / "t.json")
    (axes,) = figures[0].axes
    results = results_of(tmp_path / "t.json")
    lines = [line for line in axes.lines if len(line.get_xdata()) == 5]
    for line, result in zip(lines, results, strict=True):
        assert list(line.get_ydata()) == values_of(result)[:-1]
    means = [f"mean {result['transferability']:.2f}" for result in results]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        f"b, CIFAR-10, 3910 steps, {means[0]}",
        f"c, {means[1]}",
        f"d, {means[2]}",
    ]
    layers = [value for result in results for value in values_of(result)[:-1]]
    assert (axes.get_yscale() == "log") == (max(layers) > 5 * min(layers))


def test_figure_of_many_files_has_no_legend(files, step_3, tmp_path, figures):
    names = [tmp_path / f"b{i}.pth" for i in range(30)]
    for name in names:
        shutil.copy(files[-1], name)
    assert step_3(*files[:-2], "-b", *names).returncode == 0
    (axes,) = figures[0].axes
    assert axes.get_legend() is None
    assert len(axes.lines) == 2 * 30 + 1


def test_figure_has_a_panel_per_file(several, step_3, tmp_path, figures):
    first, paths = several
    extra = tmp_path / "e.pth"
    shutil.copy(paths[2], extra)
    ran = step_3(*first, "-b", *paths, extra, "--panels", "--json", tmp_path / "t.json")
    assert ran.stdout.splitlines()[-1] == str(tmp_path / "b_transferability.png")
    image = matplotlib.image.imread(tmp_path / "b_transferability.png")
    assert image.shape[1] > image.shape[0] > 500  # two rows of three
    axes = figures[0].axes
    for panel, result in zip(axes, results_of(tmp_path / "t.json"), strict=True):
        name = checkpoint.Path(result["b"]).stem
        assert panel.get_title() == f"{name}, mean {result['transferability']:.2f}"
        assert list(panel.lines[0].get_ydata()) == values_of(result)[:-1]
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("Block", r"$T_{FB}(\theta_A)$")


# Seeds of one experiment


def test_group_is_mean_and_sample_deviation(several, step_3, tmp_path, figures):
    first, paths = several
    ran = step_3(*first, "-b", *paths, "--group", "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    group = json.loads((tmp_path / "t.json").read_text())["group"]
    table = np.array([values_of(result) for result in results_of(tmp_path / "t.json")])
    overall = [result["transferability"] for result in results_of(tmp_path / "t.json")]
    assert set(group) == {
        *("names", "means", "deviations", "transferability", "deviation", "count"),
        *("agreement", "agreements"),
    }
    assert group["names"] == ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "fc"]
    assert group["means"] == pytest.approx(table.mean(axis=0), rel=1e-12)
    assert group["deviations"] == pytest.approx(table.std(axis=0, ddof=1), rel=1e-9)
    assert group["deviations"][0] > 0
    assert group["transferability"] == pytest.approx(np.mean(overall), rel=1e-12)
    assert group["deviation"] == pytest.approx(np.std(overall, ddof=1), rel=1e-9)
    assert group["count"] == 3
    assert f"Mean over 3 files:  {[round(v, 2) for v in group['means']]}\n" in ran.stdout
    assert f"Standard deviation:  {[round(v, 2) for v in group['deviations']]}\n" in ran.stdout
    line = f"Transferability: {np.mean(overall):.2f}, standard deviation {group['deviation']:.2f} "
    assert line + "over 3 files\n" in ran.stdout

    (axes,) = figures[0].axes
    assert list(axes.lines[0].get_ydata()) == group["means"][:-1]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["mean", "mean +- one standard deviation"]
    (band,) = axes.collections
    low, high = band.get_paths()[0].get_extents().get_points()[:, 1]
    edges = np.array(group["means"])[:-1, None] + np.outer(group["deviations"][:-1], [-1, 1])
    assert (low, high) == pytest.approx((edges.min(), edges.max()))


def test_group_with_a_layer_that_did_not_move_in_one_file(several, step_3, tmp_path, figures):
    first, paths = several
    content = torch.load(paths[1])
    content["conv1.weight"] = torch.load(first[3])["conv1.weight"]
    torch.save(content, paths[1])
    ran = step_3(*first, "-b", *paths, "--group", "--json", tmp_path / "t.json")
    assert ran.returncode == 0
    assert re.fullmatch(r"warning: conv1 did not move in \S+c\.pth: [ -~]+\n", ran.stderr)
    group = json.loads((tmp_path / "t.json").read_text())["group"]
    assert (group["means"][0], group["deviations"][0]) == ("inf", "nan")
    assert all(map(math.isfinite, group["means"][1:] + group["deviations"][1:]))
    assert "Mean over 3 files:  [inf, " in ran.stdout
    assert "Standard deviation:  [nan, " in ran.stdout
    assert math.isnan(figures[0].axes[0].lines[0].get_ydata()[0])


def test_group_of_one_file_is_an_error(files, step_3):
    assert_refused(step_3(*files, "--group"), "--group needs two files")


def test_group_of_which_one_file_is_left_is_an_error(several, step_3):
    first, paths = several
    paths[1].write_text("hello\n")
    ran = step_3(*first, "-b", *paths[:2], "--group", "--no_plot")
    assert ran.returncode == 2
    assert ran.stderr.endswith("error: --group needs two files at least\n")


def test_group_of_files_with_and_without_a_classifier_is_an_error(several, step_3, tmp_path):
    first, paths = several
    content = torch.load(paths[1])
    del content["fc.weight"], content["fc.bias"]
    torch.save(content, paths[1])
    ran = step_3(*first, "-b", *paths, "--group", "--json", tmp_path / "t.json")
    assert ran.returncode == 2
    assert re.fullmatch(r"error: --group: \S+b\.pth and \S+c\.pth have other .*\n", ran.stderr)
    assert not (tmp_path / "t.json").exists()


def test_csv_is_exact(step_3, tmp_path):
    r, a, b = constant_triple(NAMES)
    args = write_triple(tmp_path, [{**x, "fc.weight": torch.zeros(5, 2)} for x in (r, a, b)])
    c = {**b, "conv1.weight": a["conv1.weight"], "fc.weight": torch.zeros(2, 2)}
    torch.save(c, tmp_path / "c.pth")
    step_3(*args, tmp_path / "c.pth", "--no_plot", "--csv", tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert [",".join(line.split(",")[:8]) for line in lines] == [
        "b,block,layer,distance_r_b,distance_a_b,distance_r_a,transferability,in_mean",
        f"{tmp_path}/b.pth,1,conv1,3.0,2.0,1.0,1.5,True",
        f"{tmp_path}/b.pth,2,layer1.0,3.0,2.0,1.0,1.5,True",
        f"{tmp_path}/b.pth,3,fc,,,,1.0,False",
        f"{tmp_path}/c.pth,1,conv1,1.0,0.0,1.0,inf,False",
        f"{tmp_path}/c.pth,2,layer1.0,3.0,2.0,1.0,1.5,True",
        f"{tmp_path}/c.pth,3,fc,,,,1.0,False",
    ]


# Substitutes for an unknown theta_r


@pytest.fixture
def narrow(tmp_path):
    """-a and -b of a narrow ResNet-50."""
    torch.manual_seed(7)
    a = build("resnet50_w8", 6).state_dict()
    b = {k: v + 0.01 if v.is_floating_point() else v for k, v in a.items()}
    return write_triple(tmp_path, ({}, a, b))[2:]


def test_substitute_is_the_seeded_network_and_labelled(narrow, step_3, tmp_path):
    ran = step_3("-r", "random:5", *narrow, "--no_plot", "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.search(r"^theta_r is a SUBSTITUTE .*not comparable", ran.stdout, re.MULTILINE)
    found = json.loads((tmp_path / "t.json").read_text())
    assert (found["r"], found["arch"]) == ("random:5", "resnet50_w8")
    assert found["r_is_substitute"] is True

    torch.manual_seed(5)
    torch.save(build("resnet50_w8", 6).state_dict(), tmp_path / "r.pth")
    true = step_3("-r", tmp_path / "r.pth", *narrow, "--no_plot", "--json", tmp_path / "u.json")
    assert "SUBSTITUTE" not in true.stdout
    assert results_of(tmp_path / "u.json") == found["results"]

    step_3("-r", "random:5", *narrow, "--no_plot", "--json", tmp_path / "u.json")
    assert json.loads((tmp_path / "u.json").read_text()) == found
    step_3("-r", "random:6", *narrow, "--no_plot", "--json", tmp_path / "u.json")
    assert results_of(tmp_path / "u.json") != found["results"]


def test_substitute_of_a_network_that_is_not_recognised_needs_its_name(step_3, tmp_path):
    torch.manual_seed(7)
    a = build("squeezenet1_1", 6).state_dict()
    args = write_triple(tmp_path, ({}, a, {k: v + 0.01 for k, v in a.items()}))[2:]
    ran = step_3("-r", "random:5", *args, "--no_plot")
    assert ran.returncode == 2
    assert ran.stderr.endswith("is SqueezeNet; -r random:5 needs its name, add --arch\n")
    ran = step_3("-r", "random:5", *args, "--no_plot", "--arch", "squeezenet1_1")
    assert ran.returncode == 0
    assert "SUBSTITUTE" in ran.stdout


def test_substitute_of_another_architecture_is_refused(narrow, step_3):
    ran = step_3("-r", "random:5", *narrow, "--no_plot", "--arch", "resnet50_w16")
    assert_refused(ran, r"a\.pth is a resnet50_w8, not a resnet50_w16; leave --arch out")


@pytest.mark.parametrize("seed", ["x", "", "-1", "0x1", "1.0", "9" * 30, "\u0663"])
def test_seed_that_is_none_is_refused(seed, narrow, step_3):
    ran = step_3("-r", f"random:{seed}", *narrow, "--no_plot")
    assert_refused(ran, r"-r random:\S*: the seed must be a whole number")


def test_file_whose_name_looks_like_a_seed(files, step_3, tmp_path):
    (tmp_path / "r.pth").rename(tmp_path / "random:1")
    ran = step_3("-r", tmp_path / "random:1", *files[2:], "--no_plot")
    assert ran.returncode == 0
    assert "SUBSTITUTE" not in ran.stdout


# Doubtful triples


@pytest.mark.parametrize("matching", [True, False])
@pytest.mark.parametrize(("child", "parent"), [("a", "r"), ("b", "a")])
def test_recorded_parent_is_compared(child, parent, matching, files, step_3, tmp_path):
    digest = sha256(tmp_path / f"{parent}.pth") if matching else "0" * 64
    write_record(tmp_path / f"{child}.pth", parent_sha256=digest)
    ran = step_3(*files, "--no_plot")
    assert ran.returncode == 0
    expected = rf"warning: \S+{child}\.pth was not trained from \S+{parent}\.pth .*\n"
    assert re.fullmatch("" if matching else expected, ran.stderr)
    assert ("Fine-tuning: 3910 steps in 10 epochs, best" in ran.stdout) == (child == "b")


def test_record_without_a_parent_says_nothing(files, step_3, tmp_path):
    for name in "rab":
        write_record(tmp_path / f"{name}.pth", parent_sha256=None)
    assert step_3(*files, "--no_plot").stderr == ""


def test_record_of_a_substitutes_a_is_not_compared(narrow, step_3, tmp_path):
    write_record(tmp_path / "a.pth", parent_sha256="0" * 64)
    assert step_3("-r", "random:5", *narrow, "--no_plot").stderr == ""


@pytest.mark.parametrize("container", ["model_ema", "ema"])
@pytest.mark.parametrize("averaged", ["a", "b", "ab"])
def test_moving_average_against_none_is_warned_of(averaged, container, step_3, tmp_path):
    contents = [
        {container: x} if name in averaged else x
        for name, x in zip("rab", triple(resnet_shapes(), 0), strict=True)
    ]
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    expected = rf"warning: \S+a\.pth is a moving average \({container}\) and \S+b\.pth is not.*\n"
    assert re.fullmatch(expected if averaged == "a" else "", ran.stderr)


@pytest.mark.parametrize(("first", "below"), [(0.5, True), (1.5, False)])
def test_every_layer_below_one_is_warned_of(first, below, step_3, tmp_path):
    r, a, b = constant_triple(NAMES, 0.0, 3.0, 1.0)
    b["conv1.weight"] += {0.5: 0.0, 1.5: 1.0}[first]
    ran = step_3(*write_triple(tmp_path, (r, a, b)), "--no_plot")
    assert f"Layer-wise transferability:  [{2.0 if first > 1 else 0.5}, 0.5]" in ran.stdout
    expected = r"warning: every layer of \S+b\.pth has T < 1: .* -r and -a are not exchanged\n"
    assert re.fullmatch(expected if below else "", ran.stderr)


@pytest.mark.parametrize("coarse", ["a", "b", "ab", ""])
@pytest.mark.parametrize(("dtype", "step"), [(torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
def test_movement_of_few_rounding_steps_is_warned_of(coarse, dtype, step, step_3, tmp_path):
    """Of numbers from 1 on, conv1 moves by nine steps, layer1.0 by eleven."""
    r, a, b = constant_triple(NAMES, 0.0, 1.0, 1.0)
    b["conv1.weight"] += 9 * step
    b["layer1.0.conv1.weight"] += 11 * step
    contents = [
        {k: v.to(dtype) for k, v in x.items()} if name in coarse else x
        for name, x in zip("rab", (r, a, b), strict=True)
    ]
    ran = step_3(*write_triple(tmp_path, contents), "--no_plot")
    assert ran.returncode == 0
    expected = r"warning: conv1 moved by less than ten rounding steps .* is inexact\n"
    assert re.fullmatch(expected if coarse else "", ran.stderr)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6, 3e4, 0.0])
def test_rounding_step_is_numpys(scale):
    torch.manual_seed(0)
    x = (torch.randn(500).clamp_(-1.9, 1.9) * scale).half()
    x[:7] = 0
    expected = np.mean([np.spacing(np.abs(v)).astype(float) for v in x.numpy()])
    assert rounding_step(x) == pytest.approx(expected, rel=1e-12)
    # numpy has no bfloat16: the next number has the next bit pattern.
    y = x.float().abs().bfloat16()
    above = (y.view(torch.int16) + 1).view(torch.bfloat16)
    expected = (above.double() - y.double()).mean().item()
    assert rounding_step(-y) == pytest.approx(expected, rel=1e-12)
    assert rounding_step(x.float()) == rounding_step(x.double()) == 0


@pytest.mark.parametrize("head", [True, False])
def test_number_of_classes_is_checked(head, files, step_3):
    if not head:
        content = torch.load(files[-1])
        del content["fc.weight"], content["fc.bias"]
        torch.save(content, files[-1])
    found = 10 if head else None
    assert_refused(
        step_3(*files, "--num_classes", "11", "--no_plot"),
        rf"b\.pth has a classifier of {found} classes, not 11",
    )


@pytest.mark.parametrize("link", [False, True])
def test_a_and_b_are_one_file(link, files, step_3, tmp_path):
    path = tmp_path / "a.pth"
    if link:
        path = tmp_path / "link.pth"
        path.symlink_to("a.pth")
    assert_refused(step_3(*files[:-1], path), r"-a and -b are the same file \S+a\.pth")


def test_b_of_another_architecture_is_refused_with_both_names(narrow, step_3, tmp_path):
    torch.save(build("squeezenet1_1", 6).state_dict(), tmp_path / "b.pth")
    ran = step_3("-r", "random:1", *narrow, "--no_plot")
    assert_refused(ran, r"a\.pth \(resnet50_w8\) and \S+b\.pth \(SqueezeNet\) are different")
    torch.save(build("resnet50_w16", 6).state_dict(), tmp_path / "b.pth")
    ran = step_3("-r", "random:1", *narrow, "--no_plot")
    assert_refused(ran, r"\(resnet50_w8\) and \S+b\.pth \(resnet50_w16\) are different")


# Archives in parts


def split_by_hand(path):
    store(path.parent, make(path.read_bytes(), 9000, names=[path.name]), name=f"{path.stem}.zip")


def split_by_info_zip(path):
    command = [INFO_ZIP, "-q", "-s", "64k", f"{path.stem}.zip", path.name]
    subprocess.run(command, cwd=path.parent, check=True)


no_zip = pytest.mark.skipif(INFO_ZIP is None, reason="Info-ZIP's zip is not installed")
SPLITTERS = [split_by_hand, pytest.param(split_by_info_zip, marks=no_zip)]


@pytest.fixture(params=SPLITTERS)
def archives(request, tmp_path):
    """Arguments for three checkpoints that are there in parts only, and those of plain ones."""
    for folder in ("plain", "parts"):
        (tmp_path / folder).mkdir()
    contents = triple(resnet_shapes((2, 2, 2, 2), width=6), 0)
    plain = write_triple(tmp_path / "plain", contents)
    args = write_triple(tmp_path / "parts", contents)
    for path in args[1::2]:
        request.param(path)
        path.unlink()
        assert path.with_suffix(".z02").exists()
    return args, plain


def test_archives_in_parts_give_the_numbers_of_plain_files(archives, step_3, tmp_path):
    args, plain = archives
    parts = contents(tmp_path / "parts")
    ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    unpacked = [f"{p} unpacked from {p.with_suffix('.zip')}\n" for p in (args[3], args[1], args[5])]
    assert ran.stdout.startswith("".join(unpacked))
    step_3(*plain, "--no_plot", "--json", tmp_path / "u.json")
    (found,), (expected,) = results_of(tmp_path / "t.json"), results_of(tmp_path / "u.json")
    assert {**found, "b": ""} == {**expected, "b": ""}
    assert contents(tmp_path / "parts") == {**parts, **contents(tmp_path / "plain")}

    before = {path: path.stat() for path in (tmp_path / "parts").iterdir()}
    again = step_3(*args, "--no_plot")
    assert "unpacked" not in again.stdout
    assert ran.stdout.endswith(again.stdout + f"{tmp_path / 't.json'}\n")
    assert {path: path.stat().st_mtime_ns for path in before} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


def test_bare_names_are_unpacked_in_ckpt(archives, step_3, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CKPT_DIR", tmp_path / "parts")
    monkeypatch.chdir(tmp_path)
    ran = step_3("-r", "r.pth", "-a", "a.pth", "-b", "b.pth", "--no_plot")
    assert ran.returncode == 0
    assert (tmp_path / "parts" / "b.pth").is_file()


@pytest.mark.parametrize("name", ["r", "a", "b"])
def test_missing_part_is_one_line(name, archives, step_3, tmp_path):
    args, _ = archives
    part = tmp_path / "parts" / f"{name}.z02"
    part.unlink()
    ran = step_3(*args, "--no_plot")
    assert ran.returncode == 2
    assert re.fullmatch(rf"error: part {part.name} of \S+ is missing [ -~]+\n", ran.stderr)
    assert "Transferability" not in ran.stdout
    assert not (tmp_path / "parts" / f"{name}.pth").exists()


# Outputs must not replace inputs


def assert_nothing_written(ran, folder, before, *messages):
    assert_refused(ran, "cannot write ", *messages)
    assert contents(folder) == before


@pytest.mark.parametrize("option", ["--json", "--csv", "--plot"])
@pytest.mark.parametrize("name", ["r.pth", "a.pth", "b.pth"])
def test_output_over_an_input_is_refused(option, name, files, step_3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    before = {p.name: p.read_bytes() for p in tmp_path.glob("*.pth")}
    for path in (name, tmp_path / name, f"sub/../{name}"):
        assert_refused(step_3(*files, option, path), rf"{name}: it is given as an input; give an")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()} == before


@pytest.mark.parametrize("name", ["r.json", "a.csv", "b.json", "b.csv"])
@pytest.mark.parametrize("there", [True, False])
def test_output_over_a_record_is_refused(name, there, files, step_3, tmp_path):
    """Also where there is none: one that is no record would be warned of from then on."""
    if there:
        (tmp_path / name).write_text("{}")
    before = contents(tmp_path)
    ran = step_3(*files, "--no_plot", f"--{name[2:]}", tmp_path / name)
    message = rf"{name}: it belongs to the training run of \S+{name[0]}\.pth"
    assert_nothing_written(ran, tmp_path, before, message)


def test_output_over_an_input_through_links_is_refused(files, step_3, tmp_path):
    before = contents(tmp_path)
    (tmp_path / "link.pth").symlink_to("b.pth")
    (tmp_path / "out.json").symlink_to("b.json")
    args = [*files[:-1], tmp_path / "link.pth", "--no_plot", "--json"]
    for name in ("b.pth", "b.json", "link.json", "link.pth", "out.json"):
        assert_refused(step_3(*args, tmp_path / name), "cannot write ")
    (tmp_path / "link.pth").unlink()
    (tmp_path / "out.json").unlink()
    assert contents(tmp_path) == before


def test_bare_input_is_the_one_in_ckpt(files, step_3, tmp_path, monkeypatch):
    """So a result here may have the name of a record there."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.setattr(paths, "CKPT_DIR", tmp_path)
    monkeypatch.chdir(here)
    args = ["-r", "r.pth", "-a", "a.pth", "-b", "b.pth", "--no_plot", "--json"]
    assert step_3(*args, "b.json").returncode == 0
    assert_refused(step_3(*args, "../b.json"), "it belongs to the training run")


@pytest.mark.parametrize(
    "options",
    [["--json", "t", "--csv", "./t"], ["--csv", "t.png", "--plot", "t.png"]],
)
def test_two_outputs_of_one_name_are_refused(options, files, step_3, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    ran = step_3(*files, *options)
    assert_nothing_written(ran, tmp_path, before, "it is another output")


def test_figure_does_not_replace_another_output_by_its_default_name(files, step_3, tmp_path):
    table = tmp_path / "b_transferability.png"
    ran = step_3(*files, "--csv", table)
    assert ran.returncode == 1
    assert "b_transferability.png: it is another output" in ran.stderr
    assert table.read_text().startswith("b,")


@pytest.mark.parametrize("fault", ["folder", "latex", "format"])
def test_numbers_come_first_where_the_figure_cannot_be_written(
    fault, files, step_3, tmp_path, monkeypatch
):
    import matplotlib

    plot = []
    if fault == "folder":
        (tmp_path / "b_transferability.png").mkdir()
    elif fault == "latex":
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    else:
        plot = ["--plot", tmp_path / "x.nonsense"]
    numbers = [tmp_path / name for name in ("x.json", "x.csv")]
    ran = step_3(*files, *plot, "--json", numbers[0], "--csv", numbers[1])
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if not line.startswith("warning")]
    assert line.startswith(("error: cannot write", "error: cannot draw"))
    assert "Transferability:" in ran.stdout
    assert ran.stdout.splitlines()[-2:] == list(map(str, numbers))
    assert all(path.stat().st_size for path in numbers)
    assert not list(tmp_path.glob(".*tmp"))


def test_window_system_of_a_notebook_does_no_harm(files, tmp_path):
    environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.nowhere"}
    command = [sys.executable, str(ROOT / "cal_transferability.py"), *map(str, files)]
    options = {"env": environment, "capture_output": True, "text": True, "timeout": 100}
    ran = subprocess.run([*command, "--plot", str(tmp_path / "x.png")], **options)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "x.png").stat().st_size


# The published figure


@pytest.fixture
def published():
    path = ROOT / "figures" / "published_cifar10.py"
    spec = importlib.util.spec_from_file_location("published_cifar10", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_published_curve_has_18_points_and_its_mean_in_the_title(
    published, figures, tmp_path, capsys
):
    published.main(["--plot", str(tmp_path / "p.png")])
    (axes,) = figures[0].axes
    assert axes.get_title().endswith("published mean 7.79")
    values = list(axes.lines[0].get_ydata())
    assert (len(values), values[0], values[-2:]) == (18, 3.44, [13.81, 1.0])
    assert statistics.fmean(values[:-1]) == pytest.approx(7.7847, abs=1e-4)
    assert matplotlib.image.imread(tmp_path / "p.png").ndim == 3
    mean, path = capsys.readouterr().out.splitlines()
    assert (mean.rpartition(" ")[2], path) == ("7.7847", str(tmp_path / "p.png"))


def test_published_curve_is_drawn_by_its_command_beside_the_script(tmp_path):
    names = "console.py safe_io.py measurement models findings figures/published_cifar10.py".split()
    for name in names:
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, target)
    command = [sys.executable, "figures/published_cifar10.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    figure = tmp_path / "figures" / "published_cifar10.png"
    assert ran.stdout.splitlines()[-1] == str(figure)
    assert figure.read_bytes().startswith(b"\x89PNG")
