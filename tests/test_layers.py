"""Layers from keys, shapes and types alone: of the ResNets, of damaged and of unknown files."""

import itertools
import random
import subprocess
import sys
from fnmatch import fnmatch

import pytest
import torch
import torchvision
from checkpoints import ROOT, resnet_shapes, shapes_of

from console import InputError
from models import NARROW, build
from models.comparison import check_same_network, layers_to_compare
from models.layers import STRANGER, Choice, has_unknown_depth, identify, partition
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


def test_resnet_of_other_depth_has_its_layers_all_the_same():
    grouped = partition(dict(resnet_shapes((1, 2, 1, 1), width=4)))
    assert len(grouped.layers) == 7
    assert identify(grouped) == "a ResNet of 1, 2, 1, 1 blocks"


def without(shapes, *patterns):
    return {k: x for k, x in shapes.items() if not any(fnmatch(k, p) for p in patterns)}


# Every matrix is accounted for


@pytest.mark.parametrize(
    ("key", "shape", "reason"),
    [
        ("layer1.0.se.fc.weight", (4, 4), "gate"),
        ("layer1.0.downsample.0.weight", (4, 4, 1, 1), "shortcut"),
        ("layer1.0.gamma", (4, 1, 1), "scale"),
        ("attention.weight", (4, 4), STRANGER),
        ("queue", (4, 4), STRANGER),
        ("decoder.0.weight", (4, 4), STRANGER),
    ],
)
def test_matrix_that_does_not_count_has_a_reason(key, shape, reason):
    shapes = dict(resnet_shapes())
    expected = [x.tensors for x in partition(shapes).layers]
    grouped = partition({key: shape, **shapes})
    assert grouped.faults == grouped.missing == ()
    assert grouped.left_out[key] == reason
    assert [x.tensors for x in grouped.layers] == expected


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("layer1.0.conv_extra.weight", "not known to be a weight or none"),
        ("layer1.0.table", "not known to be a weight or none"),
        ("layer1.0.conv1.weight_orig", "pruned or spectrally normalised"),
        ("layer1.0.conv1.weight_v", "normalised by its norm"),
        ("layer1.0.conv1.parametrizations.weight.original0", "re-parametrised"),
        ("layer1.0.conv1.lora_A.default.weight", "merge it into the weights first"),
        ("fc.lora_B", "merge it into the weights first"),
    ],
)
def test_matrix_that_nothing_is_known_about_is_a_fault(key, message):
    grouped = partition({**dict(resnet_shapes((2, 1, 1, 1))), key: (4, 4)})
    assert any(fault.startswith(key) and message in fault for fault in grouped.faults)
    grouped = partition(grouped.shapes, choice=Choice(ignore=(f"*{key[4:]}",)))
    assert grouped.faults == grouped.missing == ()


@pytest.mark.parametrize("type_", ["int8", "float8_e4m3fn", "complex64", "qint8", "uint8"])
def test_weight_of_another_type_is_a_fault(type_):
    shapes = dict(resnet_shapes())
    del shapes["layer4.0.conv2.weight"]
    grouped = partition(shapes, {"layer4.0.conv2.weight": type_, "steps": "int64"})
    assert grouped.faults == (f"layer4.0.conv2.weight is {type_}; dequantise the file first",)


def test_unknown_network_has_its_weights_for_layers_in_file_order():
    shapes = {
        "b.weight": (3, 2),
        "a.weight": (4, 3, 1),
        "a.bias": (4,),
        "norm.weight": (4,),  # one dimension
        "pos_embed": (1, 7, 4),
        "class_token": (1, 1, 4),
        "nothing.weight": (0, 4),
        "out.0.weight": (5, 4),
    }
    grouped = partition(shapes)
    assert [layer.name for layer in grouped.layers] == ["b.weight", "a.weight", "out.0.weight"]
    assert [layer.is_classifier for layer in grouped.layers] == [False, False, True]
    assert (grouped.head, grouped.head_is_guess, grouped.family) == ("out.0", True, "")
    assert grouped.left_out == {"pos_embed": "table", "class_token": "table"}
    assert partition({**shapes, "table": (7, 4)}).faults != ()
    assert identify(grouped) == "an unknown network"


@pytest.mark.parametrize("shapes", [{}, {"norm.weight": (3,)}])
def test_file_without_weights_has_no_layers(shapes):
    grouped = partition(shapes)
    assert grouped.layers == ()
    assert identify(grouped) == "an unknown network"


# Incomplete files


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["conv1.weight"], "no module is named conv1"),
        (["layer2.1.conv2.weight"], "layer2.1.conv2.weight is missing"),
        (["layer2.1.bn2.bias"], "layer2.1.bn2.bias is missing"),
        (["layer2.0.*"], "nothing has number 0, before layer2.1"),
        (["layer2.*"], "nothing has number 2, before layer3.0"),
        (["layer2.1.conv2.*", "layer2.1.conv3.*"], "layer2.1.conv2.weight is missing"),
        (["layer2.1.conv3.weight"], "layer2.1.conv3.weight is missing"),
    ],
)
def test_part_of_a_network_is_incomplete(patterns, message):
    shapes = without(dict(resnet_shapes((2, 2, 2, 2))), *patterns)
    assert any(message in line for line in partition(shapes).missing)


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
def test_normalisation_that_lacks_a_tensor_is_incomplete(name):
    shapes = shapes_on_meta("mobilenet_v3_small")
    del shapes[f"features.4.block.1.1.{name}"]
    assert f"features.4.block.1.1.{name} is missing" in partition(shapes).missing


@pytest.mark.parametrize(
    "arch", ["mobilenet_v3_small", "efficientnet_b0", "swin_t", "convnext_tiny"]
)
def test_no_counted_weight_can_be_missing(arch):
    shapes = shapes_on_meta(arch)
    for key in partition(shapes).counted:
        lacking = partition(without(shapes, key))
        # The last but one layer of a classifier can be left out: others have none.
        assert lacking.missing or key.startswith("classifier."), key


@pytest.mark.parametrize("blocks", [(3, 4, 6), (3, 4, 6, 2), (2, 2, 2, 2), (3, 4, 6, 3), (1,)])
def test_depth_that_looks_like_a_part_is_noticed(blocks):
    shapes = without(dict(resnet_shapes((*blocks, 1, 1, 1)[:4])), "fc.*")
    shapes = without(shapes, *(f"layer{i}.*" for i in range(len(blocks) + 1, 5)))
    assert has_unknown_depth(partition(shapes)) == (blocks in [(3, 4, 6), (3, 4, 6, 2)])


# The classifier


@pytest.mark.parametrize(
    ("keys", "head"),
    [
        (["head.weight", "blocks.0.a.weight", "blocks.1.a.weight"], "head"),
        (["body.weight", "classifier.0.weight", "classifier.3.weight"], "classifier.3"),
        (["body.weight", "fc1.weight", "fc2.weight", "fc10.weight"], "fc10"),
        (["head.fc.weight", "head.pre_logits.fc.weight", "stem.weight"], "head.fc"),
        (["layers.3.linear.weight", "body.weight", "last.weight"], ""),
        (["fc.weight", "aux1.fc2.weight", "head_dist.weight", "body.weight"], "fc"),
        (["output.key.weight", "output.value.weight", "body.weight"], ""),
    ],
)
def test_classifier_is_told_by_its_name(keys, head):
    shapes = dict.fromkeys(keys, (4, 4))
    for order in itertools.permutations(shapes):
        grouped = partition({key: shapes[key] for key in order})
        if not grouped.head_is_guess:
            assert grouped.head == head
    # Without an order nothing is guessed.
    assert partition(dict(sorted(shapes.items()))).head == head


def test_classifier_may_be_chosen():
    shapes = shapes_on_meta("vgg11")
    assert partition(shapes, choice=Choice("classifier.3")).head == "classifier.3"
    assert partition(shapes, choice=Choice("classifier")).head == "classifier.6"
    grouped = partition(shapes, choice=Choice("none"))
    assert (grouped.head, len(grouped.layers)) == ("", 11)
    assert not any(layer.is_classifier for layer in grouped.layers)


def compared(a, b, **options):
    partitions = [partition(x, **options) for x in (a, a, b)]
    check_same_network(*partitions[1:], name_a="A", name_other="B")
    layers, further = layers_to_compare(*partitions)
    return [x.name for x in layers], [x.name for x in layers if x.is_classifier], further


def test_classifier_shows_by_its_outputs():
    """Whatever its name, and wherever it stands."""
    a = {"predict.weight": (9, 4), "fc.weight": (4, 4), "body.weight": (4, 4)}
    names = ["fc.weight", "body.weight", "predict.weight"]
    assert compared(a, {**a, "predict.weight": (5, 4)}) == (names, names[2:], [])
    # With the same number the name counts.
    assert compared(a, a)[1] == ["fc.weight"]


def test_of_several_classifiers_the_named_one_counts():
    a = {"body.weight": (4, 4), "one.weight": (9, 4), "head.weight": (9, 4)}
    b = {**a, "one.weight": (5, 4), "head.weight": (5, 4)}
    assert compared(a, b) == (["body.weight", "head.weight"], ["head.weight"], ["one.weight"])
    a, b = ({k.replace("head", "two"): v for k, v in x.items()} for x in (a, b))
    with pytest.raises(InputError, match=r"one and two have other numbers of outputs .* --head"):
        compared(a, b)


def test_file_without_order_does_not_tell_the_last_weight():
    shapes = {"a.weight": (4, 4), "b.weight": (4, 4), "c.weight": (4, 4)}
    with pytest.raises(InputError, match=r"nothing tells which weight .* --head MODULE"):
        compared(shapes, shapes)
    assert compared(shapes, shapes, choice=Choice("b"))[1] == ["b.weight"]
    assert compared(shapes, shapes, choice=Choice("none"))[1] == []


def test_order_is_that_of_the_first_file_that_keeps_one():
    ordered = {"z.weight": (4, 4), "a.weight": (4, 4), "m.weight": (4, 4), "fc.weight": (3, 4)}
    natural = ["a.weight", "m.weight", "z.weight", "fc.weight"]
    for files, expected in (
        ((1, 0, 0), [*ordered]),
        ((0, 1, 0), [*ordered]),
        ((0, 0, 1), [*ordered]),
        ((0, 0, 0), natural),
    ):
        r, a, b = (partition(ordered if x else dict(sorted(ordered.items()))) for x in files)
        assert [x.name for x in layers_to_compare(r, a, b)[0]] == expected


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
