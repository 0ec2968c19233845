"""The layers of the ResNets, from names and shapes alone, and the narrow networks."""

import random
import subprocess
import sys

import pytest
import torch
import torchvision
from checkpoints import ROOT, resnet_shapes, shapes_of

from models import NARROW, build
from models.layers import identify, partition
from models.resnet import NarrowResNet50

# Blocks in the four stages, convolutions in a block.
SIZES = {
    "resnet18": ((2, 2, 2, 2), 2),
    "resnet34": ((3, 4, 6, 3), 2),
    "resnet50": ((3, 4, 6, 3), 3),
    "resnet101": ((3, 4, 23, 3), 3),
    "resnet152": ((3, 8, 36, 3), 3),
    "resnet50_w32": ((3, 4, 6, 3), 3),
    "resnet50_w16": ((3, 4, 6, 3), 3),
    "resnet50_w8": ((3, 4, 6, 3), 3),
}


def shapes_on_meta(arch, num_classes=1000):
    with torch.device("meta"):
        return shapes_of(build(arch, num_classes))


def expected_layers(blocks, convolutions):
    """(name, weights) of every layer, by the definition."""
    layers = [("conv1", ["conv1.weight"])]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name = f"layer{stage}.{block}"
            layers.append((name, [f"{name}.conv{i}.weight" for i in range(1, convolutions + 1)]))
    return [*layers, ("fc", ["fc.weight"])]


@pytest.mark.parametrize("arch", SIZES)
def test_layers_of_a_resnet_are_stem_blocks_and_classifier(arch):
    shapes = shapes_on_meta(arch)
    grouped = partition(shapes)
    layers = [(layer.name, list(layer.tensors)) for layer in grouped.layers]
    assert layers == expected_layers(*SIZES[arch])
    assert [x.is_classifier for x in grouped.layers] == [False] * (len(layers) - 1) + [True]
    assert (grouped.head, grouped.family) == ("fc", "ResNet")
    assert identify(grouped) == arch


def test_numbers_of_layers_are_those_of_the_paper():
    counts = {arch: len(partition(shapes_on_meta(arch)).layers) for arch in SIZES}
    assert counts == {
        "resnet18": 10,
        "resnet34": 18,
        "resnet50": 18,
        "resnet101": 35,
        "resnet152": 52,
        "resnet50_w32": 18,
        "resnet50_w16": 18,
        "resnet50_w8": 18,
    }


@pytest.mark.parametrize("arch", ["resnet18", "resnet101"])
def test_layers_do_not_depend_on_the_order_in_the_file(arch):
    """As text `layer3.10` would come before `layer3.2`."""
    shapes = list(shapes_on_meta(arch).items())
    expected = partition(dict(shapes))
    for seed in range(5):
        random.Random(seed).shuffle(shapes)
        shuffled = partition(dict(shapes))
        assert (shuffled.layers, shuffled.head) == (expected.layers, expected.head)


@pytest.mark.parametrize("head", [True, False])
def test_backbone_without_classifier_has_no_entry_for_it(head):
    shapes = dict(resnet_shapes())
    if not head:
        del shapes["fc.weight"], shapes["fc.bias"]
    grouped = partition(shapes)
    assert grouped.layers[-1].name == ("fc" if head else "layer4.0")
    assert grouped.head == ("fc" if head else "")


def test_classifier_may_have_one_row_and_be_nested():
    shapes = dict(resnet_shapes(classes=1))
    shapes["fc.1.weight"] = shapes.pop("fc.weight")
    grouped = partition(shapes)
    assert grouped.layers[-1].tensors == ("fc.1.weight",)
    assert grouped.head == "fc.1"


def test_resnet_of_unknown_size_has_its_layers_all_the_same():
    grouped = partition(dict(resnet_shapes((1, 2, 1, 1), width=4)))
    assert len(grouped.layers) == 7
    assert identify(grouped) == "a ResNet of unknown size"


@pytest.mark.parametrize(
    "change",
    [
        {"attention.weight": (4, 4)},
        {"layer1.0.se.fc.weight": (4, 4)},
        {"layer1.0.conv_extra.weight": (4, 4)},
    ],
)
def test_weight_that_no_pattern_knows_makes_the_grouping_generic(change):
    """Otherwise it would be left out of T without a word."""
    shapes = {**change, **dict(resnet_shapes())}
    grouped = partition(shapes)
    assert grouped.family == ""
    assert grouped.layers[0].name == next(iter(change))
    assert identify(grouped) == "an unknown network"


def test_generic_layers_are_the_weights_in_file_order():
    shapes = {
        "b.weight": (3, 2),
        "a.weight": (4, 3, 1),
        "a.bias": (4,),
        "norm.weight": (4,),  # one dimension
        "table": (7, 4),  # its name does not end in weight
        "nothing.weight": (0, 4),
        "out.0.weight": (5, 4),
    }
    grouped = partition(shapes)
    assert [layer.name for layer in grouped.layers] == ["b.weight", "a.weight", "out.0.weight"]
    assert [layer.tensors for layer in grouped.layers] == [
        ("b.weight",),
        ("a.weight",),
        ("out.0.weight",),
    ]
    assert [layer.is_classifier for layer in grouped.layers] == [False, False, True]
    assert (grouped.head, grouped.family) == ("out.0", "")


@pytest.mark.parametrize("shapes", [{}, {"norm.weight": (3,)}])
def test_file_without_weights_has_no_layers(shapes):
    grouped = partition(shapes)
    assert grouped.layers == ()
    assert identify(grouped) == "an unknown network"


# Networks


def test_narrow_network_of_full_width_is_torchvisions_bit_for_bit():
    torch.manual_seed(3)
    expected = torchvision.models.resnet50(num_classes=10).eval()
    torch.manual_seed(3)
    found = NarrowResNet50(64, 10).eval()
    assert list(found.state_dict()) == list(expected.state_dict())
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(found(images), expected(images))


@pytest.mark.parametrize(("arch", "width"), NARROW.items())
def test_narrow_network_has_all_channel_counts_divided(arch, width):
    narrow, full = shapes_on_meta(arch), shapes_on_meta("resnet50")
    assert list(narrow) == list(full)
    for key in full:
        # The three colours and the classes are not divided.
        divided = [n if n in (3, 1000, 7, 1) else n * width // 64 for n in full[key]]
        assert list(narrow[key]) == divided, key


def test_size_of_the_narrow_network():
    model = build("resnet50_w16", 1000)
    assert model.fc.in_features == 512
    parameters = sum(p.numel() for p in build("resnet50_w16", 10).parameters())
    assert round(parameters / 1e6, 1) == 1.5
    with torch.no_grad():
        assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 1000)


def test_first_parameters_are_drawn_from_the_global_generator():
    first, second, other = (
        (torch.manual_seed(seed), build("resnet50_w8").conv1.weight)[1] for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_importing_names_and_layers_imports_no_torch():
    code = "import sys, models, models.layers; print([m for m in sys.modules if 'torch' in m])"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
