"""A file of a known network, changed in any way: the plain value or a clear no, never a number."""

import json
import re

import pytest
import torch
from checkpoints import call_step_3, resnet_shapes
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

WORDS = ("extra", "layer1", "conv1", "fc", "head", "weight", "0", "proj", "module", "lora_A")


def convnext_shapes():
    """(name, shape) of the parameters of a ConvNeXt of timm with two stages."""
    shapes = [("stem.0.weight", (4, 3, 4, 4)), ("stem.0.bias", (4,))]
    for stage, width in ((0, 4), (1, 6)):
        if stage:
            shapes += [
                ("stages.1.downsample.0.weight", (4,)),
                ("stages.1.downsample.0.bias", (4,)),
                ("stages.1.downsample.1.weight", (6, 4, 2, 2)),
                ("stages.1.downsample.1.bias", (6,)),
            ]
        for block in range(2):
            name = f"stages.{stage}.blocks.{block}"
            shapes += [
                (f"{name}.gamma", (width,)),
                (f"{name}.conv_dw.weight", (width, 1, 7, 7)),
                (f"{name}.norm.weight", (width,)),
                (f"{name}.norm.bias", (width,)),
                (f"{name}.mlp.fc1.weight", (2 * width, width)),
                (f"{name}.mlp.fc2.weight", (width, 2 * width)),
            ]
    return [*shapes, ("head.fc.weight", (5, 6)), ("head.fc.bias", (5,))]


# The layer that a key belongs to.
LAYER = r"layer\d\.\d|stages\.\d\.(blocks\.\d|downsample)|\w+"
NETWORKS = {"resnet": resnet_shapes((1, 2, 1, 1)), "convnext": convnext_shapes()}
keys = st.integers(0, 10**6)  # of a tensor, modulo their number
words = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(".".join)
types = st.sampled_from([torch.int8, torch.float8_e4m3fn, torch.complex64, torch.float16])
sizes = st.lists(st.integers(1, 6), max_size=4)
CHANGES = st.one_of(
    st.tuples(st.just("drop"), keys),
    st.tuples(st.just("rename"), keys, words),
    st.tuples(st.just("retype"), keys, types),
    st.tuples(st.just("add"), words, sizes),
    st.tuples(st.just("prefix"), words),
    st.tuples(st.just("sort")),
)


def change(theta, kind, *details):
    """A changed copy of a state dict."""
    names = list(theta)
    if kind == "add":
        return {**theta, details[0]: torch.randn(details[1])}
    if kind == "prefix":
        return {f"{details[0]}.{key}": value for key, value in theta.items()}
    if kind == "sort":
        return dict(sorted(theta.items()))
    key = names[details[0] % len(names)]
    if kind == "drop":
        return {k: v for k, v in theta.items() if k != key}
    if kind == "rename":
        return {details[1] if k == key else k: v for k, v in theta.items()}
    return {k: v.to(details[1]) if k == key else v for k, v in theta.items()}


def measured(folder, capsys, network, changes=(), files=""):
    """What step 3 says of the network, and T of every layer, after changes in some files."""
    args, places = [], {}
    for flag in "rab":
        theta = {}
        for key, shape in NETWORKS[network]:
            # T is another whole number in every layer: its place + 2.
            place = places.setdefault(re.match(LAYER, key)[0], len(places))
            value = {"r": 0.0, "a": 1.0, "b": 1 + 1 / (place + 1)}[flag]
            theta[key] = torch.full(shape, value, dtype=torch.float64)
        for each in changes if flag in files else ():
            theta = change(theta, *each)
        torch.save(theta, folder / f"{flag}.pth")
        args += [f"-{flag}", folder / f"{flag}.pth"]
    ran = call_step_3(capsys, *args, "--no_plot", "--json", folder / "t.json")
    if ran.returncode != 0:
        return ran, None
    layers = json.loads((folder / "t.json").read_text())["results"][0]["layers"]
    # Whole numbers but for the rounding of short types.
    return ran, [round(x["transferability"], 2) for x in layers if x["in_mean"]]


@pytest.mark.parametrize("network", NETWORKS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGES, min_size=1, max_size=3), files=st.sampled_from(["b", "rab", "ra"]))
@example(changes=[("prefix", "extra.extra.extra.extra")] * 3, files="rab")
def test_changed_files_give_the_plain_values_or_a_clear_no(
    network, changes, files, tmp_path, capsys
):
    _, plain = measured(tmp_path, capsys, network)
    assert len(plain) == len({*plain}) >= 6
    ran, values = measured(tmp_path, capsys, network, changes, files)
    if values is None:
        assert ran.returncode == 2
        assert ran.stderr.splitlines()[-1].startswith("error: ")
    elif "a.pth: not a part of" in ran.stderr:
        # A weight under a name of its own in all files is outside of the network, which is said.
        assert {round(x) for x in values} <= {*plain}
    else:
        assert values == pytest.approx(plain, abs=0.02), ran.stderr
