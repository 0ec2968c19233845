"""Every network of the table: the right layers in the right order, from any container."""

import functools
import json
import random

import networks
import pytest
import torch
from safetensors.torch import save_file

import console
import models.__main__
from models.layers import STRANGER

pytest.importorskip("timm")

# One of every kind of block and of key; the others are of the same code.
SHORT = set(
    """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3
    maxvit_t mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18
    resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_0 swin_t swin_v2_t vgg11 vit_b_16
    beit_base_patch16_224 deit_tiny_distilled_patch16_224 eva02_base_patch14_224
    mixer_b16_224 mobilenetv3_large_100 pvt_v2_b0 regnety_004 resnet18d resnetv2_50 seresnet50
    swin_tiny_patch4_window7_224 vit_small_patch14_reg4_dinov2
    """.split()
)
NETWORKS = [
    pytest.param(
        library,
        name,
        id=f"{library}-{name}",
        marks=() if name in SHORT or library == "Hugging Face" else pytest.mark.slow,
    )
    for library, name in networks.all_networks()
]
found = functools.cache(networks.network)


@pytest.mark.parametrize(("library", "name"), NETWORKS)
def test_layers_of_a_network(library, name):
    network = found(library, name)
    (a, layers), (_, from_sorted_keys) = networks.divided(network.shapes, network.head)
    assert a.faults == a.missing == ()
    assert STRANGER not in a.left_out.values()
    assert layers == from_sorted_keys
    assert bool(a.family) == bool(network.count), "only networks without blocks are not known"

    # Every matrix is in one layer, or left out for a reason.
    counted = [key for layer in layers for key in layer.tensors]
    matrices = {key for key, shape in network.shapes.items() if len(shape) > 1}
    assert len(counted) == len({*counted})
    assert {*counted} | a.left_out.keys() == matrices

    # Every block is one layer, which holds nothing else, in the order of the modules.
    owners = {
        block: [x for x in layers if any(key.startswith(block + ".") for key in x.tensors)]
        for block in network.blocks
    }
    assert all(len(x) == 1 for x in owners.values())
    assert [x.name for (x,) in owners.values()] == [
        x.name for x in layers if any([x] == owner for owner in owners.values())
    ]
    for block, (layer,) in owners.items():
        assert all(key.startswith(block + ".") for key in layer.tensors)
    if library == "Hugging Face":
        assert len(layers) == networks.HUGGING_FACE[name][0]

    classifiers = [x.tensors for x in layers if x.is_classifier]
    assert classifiers == ([(f"{network.head}.weight",)] if a.row.lists_classifier else [])


def tiny(shapes):
    """Shapes with few channels: T of constant tensors does not depend on their size."""
    return {key: tuple(n if n <= 3 else 2 + n % 3 for n in x) for key, x in shapes.items()}


def container(folder, name, tensors, kind):
    path = folder / f"{name}.{kind}"
    if kind == "pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("torchvision", "mobilenet_v3_small"),
        ("torchvision", "vgg11"),
        ("timm", "resnet18d"),
        ("timm", "swin_tiny_patch4_window7_224"),
        ("timm", "deit_tiny_distilled_patch16_224"),
        ("Hugging Face", "ConvNextForImageClassification"),
    ],
)
@pytest.mark.parametrize("classes", [1000, 5])
def test_t_is_the_same_from_every_container(library, name, classes, step_3, tmp_path):
    """r = 0, A = 1, B = 3: T is 1.5 in every layer but the classifier."""
    network = found(library, name)
    shapes = tiny(network.shapes)
    contents = [{k: torch.full(x, v) for k, x in shapes.items()} for v in (0.0, 1.0, 3.0)]
    for key, value in contents[2].items():
        if key.startswith(network.head + ".") and classes == 5:
            contents[2][key] = torch.zeros(5, *value.shape[1:])
    expected = None
    kinds = [("pth",) * 3, ("safetensors",) * 3]
    kinds.append(tuple(random.Random(name).choices(("pth", "safetensors"), k=3)))
    for r, a, b in kinds:
        files = [
            container(tmp_path, key, content, kind)
            for key, content, kind in zip("rab", contents, (r, a, b), strict=True)
        ]
        args = [x for pair in zip(("-r", "-a", "-b"), files, strict=True) for x in pair]
        ran = step_3(*args, "--no_plot", "--json", tmp_path / "t.json")
        assert ran.returncode == 0, ran.stderr
        layers = json.loads((tmp_path / "t.json").read_text())["results"][0]["layers"]
        names = [(x["name"], x["transferability"]) for x in layers]
        expected = expected or names
        assert names == expected
        assert {x for _, x in names[:-1]} == {1.5}


# python -m models FILE


def listed(path, capsys, *args):
    code = console.run(lambda: models.__main__.main([str(path), *args]))
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_layers_of_a_file_are_listed(tmp_path, capsys):
    shapes = found("timm", "resnet18d").shapes
    path = container(tmp_path, "a", {k: torch.zeros(x) for k, x in tiny(shapes).items()}, "pth")
    code, lines, err = listed(path, capsys)
    assert (code, err) == (0, "")
    assert lines[0] == f"{path}: ResNet of another kind, 10 layers"
    assert lines[1].split()[:3] == ["1", "conv1", "0.weight"]
    assert lines[2].startswith("    2  layer1.0  conv1.weight [3, 3, 3, 3], conv2.weight ")
    assert lines[10].split()[1] == "fc.weight"
    assert "left out, shortcut: layerN.N.downsample.N.weight (3)" in lines
    assert any(line.startswith("classifier: fc, ") for line in lines)
    # As step 3 would be told.
    _, lines, _ = listed(path, capsys, "--head", "none", "--ignore", "layer1.0.*")
    assert "left out, ignored: layerN.N.convN.weight (2)" in lines
    assert "classifier: none" in lines
    assert not any(line.split()[1:2] == ["layer1.0"] for line in lines)
    # Lists add up.
    _, lines, _ = listed(path, capsys, "--ignore", "layer1.0.*", "--ignore", "layer1.1.*")
    assert "left out, ignored: layerN.N.convN.weight (4)" in lines


def test_problems_of_a_file_are_listed_and_end_with_exit_code_2(tmp_path, capsys):
    shapes = tiny(found("torchvision", "resnet18").shapes)
    tensors = {k: torch.zeros(x) for k, x in shapes.items() if k != "layer2.1.conv2.weight"}
    tensors["layer3.0.conv1.weight"] = tensors["layer3.0.conv1.weight"].to(torch.int8)
    path = container(tmp_path, "a", tensors, "pth")
    code, lines, err = listed(path, capsys)
    assert code == 2
    assert err == f"error: step 3 would refuse {path}, as it is listed above\n"
    assert "problem: layer3.0.conv1.weight is int8; dequantise the file first" in lines
    assert any("problem: incomplete: layer2.1.conv2.weight is missing" in line for line in lines)
