"""Companions of T, the record that travels with a result, and `measure` on plain dicts."""

import csv
import json
import math
import statistics
import subprocess
import sys
from itertools import combinations

import pytest
import torch
from checkpoints import ROOT, resnet_shapes, triple, write_record, write_triple
from hypothesis import given
from hypothesis import strategies as st

from cal_transferability import measure
from measurement.companions import left_by_decay
from measurement.results import RECORD

SEEDS = st.integers(0, 2**32 - 1)
SHIPPED = ROOT / "ckpt" / "shipped"


def vector(theta, layer):
    """The counted weights of a layer as one vector in float64."""
    return torch.cat([theta[key].double().flatten() for key in layer["tensors"]])


def by_definition(r, a, b):
    """Norms, cosines and angles of three vectors, written out."""

    def cos(x, y):
        return (x @ y / (x.norm() * y.norm())).clamp(-1, 1).item()

    def angle(x, y):
        return math.degrees(math.acos(cos(x, y)))

    norms = {f"norm_{name}": x.norm().item() for name, x in (("r", r), ("a", a), ("b", b))}
    cosines = {"cos_ra": cos(r, a), "cos_rb": cos(r, b), "cos_ab": cos(a, b)}
    return {
        **norms,
        **cosines,
        "rotation": angle(a, b),
        "t_angle": angle(r, b) / angle(a, b),
    }


def check_layers(result, thetas):
    for layer in result["layers"]:
        if layer["distance_r_b"] is None:
            continue
        r, a, b = (vector(theta, layer) for theta in thetas)
        for name, value in by_definition(r, a, b).items():
            assert layer[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_companions_are_those_of_plain_torch(dtype, step_3, tmp_path):
    # Several blocks of the pass in a weight, and a last one that is shorter.
    shapes = [("conv1.weight", (70, 3, 13, 13)), *resnet_shapes(width=8)[1:]]
    thetas = [{k: v.to(dtype) for k, v in x.items()} for x in triple(shapes, 0)]
    args = write_triple(tmp_path, thetas)
    step_3(*args, "--no_plot", "--per_tensor", "--json", tmp_path / "t.json")
    (result,) = json.loads((tmp_path / "t.json").read_text())["results"]
    check_layers(result, thetas)
    check_layers({"layers": result["tensors"]}, thetas)
    layers = [x for x in result["layers"] if x["in_mean"]]
    for name in ("rotation", "t_angle"):
        assert result[name] == pytest.approx(statistics.fmean(x[name] for x in layers))
    left = [x["cos_ra"] * x["norm_a"] / x["norm_r"] for x in layers]
    assert result["left_of_r"] == pytest.approx(statistics.fmean(left))
    shrinkage = [x["norm_b"] / x["norm_a"] for x in layers]
    assert result["shrinkage"] == pytest.approx(statistics.fmean(shrinkage))


def test_shipped_files_have_the_companions_of_plain_torch(step_3, tmp_path):
    step_3("--no_plot", "--json", tmp_path / "t.json", "--csv", tmp_path / "t.csv")
    content = json.loads((tmp_path / "t.json").read_text())
    r, a = (torch.load(content[key]) for key in "ra")
    rounded = []
    for result in content["results"]:
        check_layers(result, (r, a, torch.load(result["b"])))
        rounded.append([round(result[name], 2) for name in ("rotation", "t_angle", "left_of_r")])
    assert rounded == [[9.74, 5.66, 0.41], [3.2, 20.88, 0.41]]
    first = content["results"][0]
    assert round(first["shrinkage"], 3) == 0.954
    # By the records: decay 1e-4, momentum 0.9, and the rates up to the kept epoch.
    assert first["left_of_r_predicted"] == pytest.approx(0.376, abs=5e-4)
    assert first["shrinkage_predicted"] == pytest.approx(0.942, abs=5e-4)


@given(seed=SEEDS, factor=st.floats(1e-3, 1e3))
def test_scaling_a_layer_of_a_and_b_changes_no_angle(seed, factor):
    r, a, b = ({k: v.double() for k, v in x.items()} for x in triple(resnet_shapes(), seed))
    before = measure(r, a, b)
    key = "layer2.0.conv2.weight"
    for theta in (a, b):
        for other in ("layer2.0.conv1.weight", key, "layer2.0.conv3.weight"):
            theta[other] = theta[other] * factor
    after = measure(r, a, b)
    for x, y in zip(before.layers, after.layers, strict=True):
        if x.companions:
            assert y.companions.rotation == pytest.approx(x.companions.rotation, rel=1e-9)
            assert y.companions.t_angle == pytest.approx(x.companions.t_angle, rel=1e-9)


@given(seed=SEEDS)
def test_t_is_the_ratio_of_mean_absolute_differences_to_the_last_digit(seed):
    r, a, b = triple(resnet_shapes(), seed)
    for x in measure(r, a, b).layers:
        if x.layer.is_classifier:
            continue

        def distance(theta, layer=x.layer):
            return statistics.fmean(
                (theta[k] - b[k]).abs().sum(dtype=torch.float64).item() / b[k].numel()
                for k in layer.tensors
            )

        assert x.transferability == pytest.approx(distance(r) / distance(a), rel=1e-12)


# Special values


def test_layer_that_did_not_move_is_not_turned(step_3, tmp_path):
    r, a, b = triple(resnet_shapes(), 0)
    b["conv1.weight"] = a["conv1.weight"]
    ran = step_3(*write_triple(tmp_path, (r, a, b)), "--no_plot", "--json", tmp_path / "t.json")
    (result,) = json.loads((tmp_path / "t.json").read_text())["results"]
    first, *others, _ = result["layers"]
    assert (first["rotation"], first["t_angle"]) == (0.0, "inf")
    assert result["rotation"] == pytest.approx(statistics.fmean(x["rotation"] for x in others))
    assert "(0.0 in conv1 ... " in ran.stdout


def test_layer_of_norm_0_has_no_angle(step_3, tmp_path):
    r, a, b = triple(resnet_shapes(), 0)
    r["conv1.weight"] = torch.zeros_like(r["conv1.weight"])
    ran = step_3(*write_triple(tmp_path, (r, a, b)), "--no_plot", "--json", tmp_path / "t.json")
    assert ran.returncode == 0
    first = json.loads((tmp_path / "t.json").read_text())["results"][0]["layers"][0]
    assert (first["norm_r"], first["cos_ra"], first["cos_rb"]) == (0.0, None, None)
    assert first["t_angle"] is None
    assert first["rotation"] > 0


# Agreement of seeds


def seeds_of(count, shared, tmp_path):
    """Arguments for files of theta_FB whose movements share a part: cosine `shared` ** 2."""
    r, a, b = triple(resnet_shapes(width=8), 0)
    paths = []
    generator = torch.Generator().manual_seed(0)
    common = {k: torch.randn(v.shape, generator=generator) for k, v in a.items()}
    for i in range(count):
        moved = {
            k: v + 0.01 * (shared * common[k] + torch.randn(v.shape, generator=generator))
            for k, v in a.items()
        }
        paths.append(tmp_path / f"b{i}.pth")
        torch.save({**moved, **{k: v for k, v in b.items() if k.startswith("fc")}}, paths[-1])
    args = write_triple(tmp_path, (r, a, b))[:4]
    return args, paths


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_agreement_is_the_mean_cosine_across_theta_a(shared, step_3, tmp_path):
    args, paths = seeds_of(3, shared, tmp_path)
    ran = step_3(*args, "-b", *paths, "--group", "--no_plot", "--json", tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    a, *files = (torch.load(path) for path in (args[3], *paths))
    expected = {}
    for layer in content["results"][0]["layers"][:-1]:
        base = vector(a, layer)
        moves = []
        for file in files:
            move = vector(file, layer) - base
            move -= (move @ base) / (base @ base) * base
            moves.append(move / move.norm())
        cosines = [(x @ y).item() for x, y in combinations(moves, 2)]
        expected[layer["name"]] = statistics.fmean(cosines)
    assert content["group"]["agreements"] == pytest.approx(expected, abs=1e-6)
    mean = statistics.fmean(expected.values())
    assert content["group"]["agreement"] == pytest.approx(mean, abs=1e-6)
    low, high = min(expected.values()), max(expected.values())
    assert f"Agreement of seeds: {mean:.2f} ({low:.2f} ... {high:.2f})\n" in ran.stdout
    assert (mean > 0.4) == (shared == 1.0)


# The record


RUN = {
    "args": {"dataset": "CIFAR-10", "image_size": 32, "optimizer": "sgd", "lr": 0.01}
    | {"batch_size": 128, "weight_decay": 1e-4},
    "classes": ["a", "b", "c"],
    "train_images": 900,
    "sum_lr": 0.8,
    "last_batch": 4,
    "processes": 1,
}


def test_record_travels_with_the_result(files, step_3, tmp_path):
    write_record(tmp_path / "b.pth", **RUN)
    (tmp_path / "b.csv").write_text("epoch,step,sum_lr\n6,1,0.5\n7,2,0.6\n8,3,0.7\n")
    options = ("--no_plot", "--json", tmp_path / "t.json", "--csv", tmp_path / "t.csv")
    step_3(*files, *options)
    (result,) = json.loads((tmp_path / "t.json").read_text())["results"]
    record = result["record"]
    assert tuple(record) == RECORD
    assert (record["classes"], record["train_images"], record["labels"]) == (3, 900, "true")
    assert (record["sum_lr"], record["sum_lr_kept"], record["last_batch"]) == (0.8, 0.6, 4)
    assert all(len(result[f"sha256_{name}"]) == 64 for name in "rab")
    assert result["shrinkage_predicted"] == pytest.approx(math.exp(-1e-4 * 0.6 / 0.1))
    for row in csv.DictReader((tmp_path / "t.csv").open()):
        assert (row["dataset"], row["sum_lr_kept"], row["labels"]) == ("CIFAR-10", "0.6", "true")
        assert row["sha256_b"] == result["sha256_b"]


def test_adamw_decays_beside_the_gradient():
    assert left_by_decay(1e-2, 5.0, "adamw") == pytest.approx(math.exp(-0.05))
    assert left_by_decay(1e-2, 5.0, "sgd") == pytest.approx(math.exp(-0.5))


def test_accuracies_may_be_null(files, step_3, tmp_path):
    nothing = {"val_acc": None, "best_val_acc": None, "kept": "last", "kept_epoch": 10}
    write_record(tmp_path / "b.pth", **RUN, **nothing)
    ran = step_3(*files, "--no_plot")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "training loss 0.1235, validation accuracy none\n" in ran.stdout


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sum_lr": 0.8 * (1 + 1e-7)}, None),
        ({"sum_lr": 0.81}, "sum_lr (0.8, 0.81)"),
        ({"train_images": 896}, "train_images (900, 896)"),
        ({"last_batch": 128}, "last_batch (4, 128)"),
        ({"processes": 2}, "processes (1, 2)"),
        ({"processes": None}, None),  # an old record: unknown, not unlike
        ({"args": {**RUN["args"], "weight_decay": 0.0}}, "weight_decay (0.0001, 0.0)"),
        ({"args": {**RUN["args"], "labels": "random"}}, "labels (true, random)"),
    ],
)
def test_budgets_that_differ_are_named(changes, named, files, step_3, tmp_path):
    torch.save(triple(resnet_shapes(), 1)[2], tmp_path / "c.pth")
    last = {"kept": "last", "kept_epoch": 10}
    write_record(tmp_path / "b.pth", **RUN, **last)
    write_record(tmp_path / "c.pth", **RUN | last | changes)
    ran = step_3(*files, tmp_path / "c.pth", "--no_plot")
    warned = [line for line in ran.stderr.splitlines() if "the files differ in" in line]
    assert bool(warned) == (named is not None)
    if named:
        assert f"the files differ in {named}: their T cannot be compared" in warned[0]


def test_best_epochs_that_are_not_the_same_are_named(files, step_3, tmp_path):
    torch.save(triple(resnet_shapes(), 1)[2], tmp_path / "c.pth")
    write_record(tmp_path / "b.pth", **RUN)
    write_record(tmp_path / "c.pth", **RUN, kept_epoch=3)
    assert (
        "the best epochs of the files are not the same (7, 3)"
        in step_3(*files, tmp_path / "c.pth", "--no_plot").stderr
    )


@pytest.mark.parametrize(("sum_lr", "trusted"), [(4000.0, True), (400.0, False)])
def test_substitute_is_trusted_where_decay_has_left_little(sum_lr, trusted, step_3, tmp_path):
    from models import build

    torch.manual_seed(1)
    a = build("resnet50_w8", 10).state_dict()
    b = {k: v + 0.01 if v.is_floating_point() else v for k, v in a.items()}
    torch.save(a, tmp_path / "a.pth")
    torch.save(b, tmp_path / "b.pth")
    write_record(tmp_path / "a.pth", **RUN | {"sum_lr": sum_lr, "kept_epoch": 10, "kept": "last"})
    files = ("-a", tmp_path / "a.pth", "-b", tmp_path / "b.pth")
    out = step_3("-r", "random:5", *files, "--no_plot").stdout
    assert ("so T is nearly that of the true theta_r" in out) == trusted
    assert ("SUBSTITUTE" in out) != trusted


# From Python


def test_measure_takes_plain_dicts():
    r, a, b = triple(resnet_shapes(), 0)
    result = measure(r, {"state_dict": a}, {f"module.{k}": v for k, v in b.items()})
    assert result.b is None
    names = [x.layer.name for x in result.layers]
    assert names == ["conv1", "layer1.0", "layer2.0", "layer3.0", "layer4.0", "fc"]
    assert result.transferability == pytest.approx(statistics.fmean(result.values()))
    assert 0 < result.rotation < 90


def test_measure_of_other_networks_names_the_arguments():
    from console import InputError

    r, a, b = triple(resnet_shapes(), 0)
    with pytest.raises(InputError, match=r"theta_a \(.*\) and theta_b \(.*\) are different"):
        measure(r, a, {k: v for k, v in b.items() if "conv2" not in k})


def test_measure_runs_under_the_back_end_of_a_notebook():
    code = (
        "import torch; from cal_transferability import measure\n"
        "r, a, b = ({f'layer1.{i}.conv1.weight': torch.full((4, 4, 1, 1), x) for i in (0, 1)}"
        " | {'conv1.weight': torch.full((4, 3, 1, 1), x)} for x in (0.0, 1.0, 3.0))\n"
        "print(measure(r, a, b).transferability)"
    )
    environment = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1.5\n", "")


# Seeds of one experiment


@pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])
def test_copy_is_no_seed(files, step_3, tmp_path, precision):
    copy = tmp_path / "copy.pth"
    theta = torch.load(tmp_path / "b.pth")
    floating = {key: x for key, x in theta.items() if x.is_floating_point()}
    torch.save({**theta, **{key: x.to(precision) for key, x in floating.items()}}, copy)
    ran = step_3(*files, copy, "--group", "--no_plot")
    assert ran.returncode == 2
    assert ran.stderr.endswith(
        f"error: --group: {tmp_path / 'b.pth'} and {copy} hold the same parameters; a copy is no "
        "seed of its own\n"
    )


def test_one_file_under_several_spellings_is_one_seed(files, step_3, tmp_path):
    (tmp_path / "link.pth").symlink_to("b.pth")
    (tmp_path / "saved").mkdir()
    inside = tmp_path / "saved" / "pytorch_model.bin"
    inside.hardlink_to(tmp_path / "b.pth")
    spellings = (tmp_path / "link.pth", f"{tmp_path}/./b.pth", "-b", tmp_path / "b.pth")
    spellings += (inside, inside.parent)
    ran = step_3(*files, *spellings, "--group", "--no_plot")
    message = "error: --group needs two files of -b at least, and all that is given is one file\n"
    assert (ran.returncode, ran.stderr) == (2, message)


def test_files_of_every_b_are_measured(files, step_3, tmp_path):
    torch.save(triple(resnet_shapes(), 1)[2], tmp_path / "c.pth")
    ran = step_3(*files, "-b", tmp_path / "c.pth", "--no_plot")
    assert [line[-7:] for line in ran.stdout.splitlines() if line.endswith("pth:")] == [
        "/b.pth:",
        "/c.pth:",
    ]


def test_seeds_of_unlike_budgets_are_no_group(files, step_3, tmp_path):
    torch.save(triple(resnet_shapes(), 1)[2], tmp_path / "c.pth")
    write_record(tmp_path / "b.pth", **RUN)
    write_record(tmp_path / "c.pth", **RUN | {"sum_lr": 1.6})
    ran = step_3(*files, tmp_path / "c.pth", "--group", "--no_plot")
    assert ran.returncode == 2
    assert "error: --group: the files differ in sum_lr (0.8, 1.6); give seeds of" in ran.stderr
