"""Every network that can be named: built, grouped into layers, started from pre-trained files."""

import pytest
import torch
import torchvision
from checkpoints import old_densenet_key, shapes_of, timm_key

from console import InputError
from models import ARCHS, NARROW, TORCHVISION, build, checkpoint
from models.checkpoint import Checkpoint
from models.dialects import to_torchvision
from models.layers import identify, partition
from models.pretrained import load_pretrained

# One of every kind of code in `build`, and of every kind of head; the rest differ in numbers only.
VARIED = [
    "alexnet",
    "densenet121",
    "efficientnet_b0",
    "googlenet",
    "mobilenet_v3_small",
    "resnext50_32x4d",
    "resnet50_w8",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "swin_t",
    "vit_small",
]


def test_names_are_torchvisions_and_ours():
    assert set(TORCHVISION) == set(torchvision.models.list_models(module=torchvision.models))
    assert set(ARCHS) == {*TORCHVISION, *NARROW, "vit_small"}


@pytest.mark.parametrize("arch", VARIED)
def test_network_has_the_classes_asked_for_and_a_known_head(arch):
    model = build(arch, 7).eval()
    head = partition(shapes_of(model)).head
    assert shapes_of(model)[f"{head}.weight"][0] == 7
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 7)


def test_unknown_name_lists_the_known():
    with pytest.raises(InputError, match=r"unknown architecture 'resnet5'; known: .*resnet50_w16"):
        build("resnet5")


@pytest.mark.parametrize("arch", ["vit_small", "vit_b_16"])
def test_image_size_that_patches_do_not_tile_is_refused(arch):
    with pytest.raises(InputError, match=f"{arch} cannot be built for image size 100"):
        build(arch, image_size=100)


def test_vit_small_has_the_sizes_of_deit_small():
    model = build("vit_small", 1000)
    assert sum(p.numel() for p in model.parameters()) == 22_050_664
    assert model.encoder.layers[0].self_attention.num_heads == 6


@pytest.mark.parametrize(
    ("arch", "layers", "first", "last"),
    [
        ("resnet18", 10, "conv1", "fc"),
        ("resnet34", 18, "conv1", "fc"),
        ("resnet50_w16", 18, "conv1", "fc"),
        ("resnext50_32x4d", 18, "conv1", "fc"),
        ("wide_resnet50_2", 18, "conv1", "fc"),
        ("densenet121", 63, "features.conv0", "classifier"),
        ("densenet161", 83, "features.conv0", "classifier"),
        ("densenet169", 87, "features.conv0", "classifier"),
        ("densenet201", 103, "features.conv0", "classifier"),
        (
            "vit_small",
            12,
            "encoder.layers.encoder_layer_0",
            "encoder.layers.encoder_layer_11",
        ),
        (
            "vit_b_16",
            12,
            "encoder.layers.encoder_layer_0",
            "encoder.layers.encoder_layer_11",
        ),
        ("vgg11", 11, "features.0.weight", "classifier.6.weight"),
    ],
)
def test_layers_of_an_architecture(arch, layers, first, last):
    with torch.device("meta"):
        shapes = shapes_of(build(arch))
    grouped = partition(shapes)
    assert len(grouped.layers) == layers
    assert (grouped.layers[0].name, grouped.layers[-1].name) == (first, last)
    known = bool(grouped.family)
    assert identify(grouped) == (arch if known else "an unknown network")
    assert grouped.layers[-1].is_classifier == (grouped.family != "ViT")


def test_layers_of_a_densenet_are_in_network_order():
    with torch.device("meta"):
        names = [layer.name for layer in partition(shapes_of(build("densenet121"))).layers]
    assert names[1] == "features.denseblock1.denselayer1"
    assert names[6:9] == [
        "features.denseblock1.denselayer6",
        "features.transition1",
        "features.denseblock2.denselayer1",
    ]
    assert names[-2] == "features.denseblock4.denselayer16"


def test_block_of_a_vit_counts_attention_and_mlp():
    with torch.device("meta"):
        grouped = partition(shapes_of(build("vit_small")))
    start = "encoder.layers.encoder_layer_10."
    assert set(grouped.layers[10].tensors) == {
        start + "self_attention.in_proj_weight",
        start + "self_attention.out_proj.weight",
        start + "mlp.0.weight",
        start + "mlp.3.weight",
    }
    assert grouped.head == "heads.head"


def test_keys_of_timm_and_of_old_torchvision_become_todays():
    with torch.device("meta"):
        vit, densenet = build("vit_small").state_dict(), build("densenet121").state_dict()
    timm = {timm_key(k): v for k, v in vit.items()}
    assert "blocks.11.attn.qkv.bias" in timm
    assert list(to_torchvision(timm)) == list(vit)
    old_vit = {k.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): 0 for k in vit}
    assert list(to_torchvision(old_vit)) == list(vit)
    old = {old_densenet_key(key): 0 for key in densenet}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert list(to_torchvision(old)) == list(densenet)


@pytest.mark.parametrize("arch", ["resnet50_w8", "squeezenet1_1", "vit_small"])
def test_pretrained_tensors_are_copied_and_the_head_is_new(arch, tmp_path):
    torch.manual_seed(1)
    source = build(arch, 1000)
    path = tmp_path / "a.pth"
    checkpoint.write(path, source.state_dict())
    torch.manual_seed(0)
    model = build(arch, 5)
    fresh = load_pretrained(model, checkpoint.read(path), image_size=224)
    loaded = model.state_dict()
    head = partition(shapes_of(model)).head
    assert set(fresh) == {f"{head}.weight", f"{head}.bias"}
    assert loaded[f"{head}.weight"].shape[0] == 5
    # A fresh nn.Linear, even where the network itself starts its head at 0 (ViT).
    assert loaded[f"{head}.weight"].abs().sum() > 0
    for key, value in source.state_dict().items():
        assert key in fresh or torch.equal(loaded[key], value), key


def test_head_is_new_even_if_the_number_of_classes_is_the_same(tmp_path):
    source = build("resnet50_w8", 5)
    path = tmp_path / "a.pth"
    checkpoint.write(path, source.state_dict())
    model = build("resnet50_w8", 5)
    load_pretrained(model, checkpoint.read(path), image_size=32)
    assert not torch.equal(model.fc.weight, source.fc.weight)


def as_checkpoint(tensors, tmp_path):
    return Checkpoint(tmp_path / "a.pth", tensors, "")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t: t.pop("layer1.0.conv1.weight"), r"layer1\.0\.conv1\.weight is missing"),
        (lambda t: t.pop("bn1.running_var"), r"bn1\.running_var is missing"),
        (
            lambda t: t.update({"conv1.weight": torch.zeros(8, 3, 3, 3)}),
            r"conv1\.weight is \[8, 3, 3, 3\] in the file and \[8, 3, 7, 7\] in the network",
        ),
        (
            lambda t: t.update({"bn1.extra": torch.zeros(2)}),
            r"the network has no tensor bn1\.extra",
        ),
        (
            lambda t: [t.update({f"a{i}.{k}": t.pop(k)}) for i, k in enumerate(list(t))],
            "it has none of the .* tensors of the network",
        ),
    ],
)
def test_file_that_does_not_fit_is_refused(damage, message, tmp_path):
    tensors = build("resnet50_w8", 10).state_dict()
    damage(tensors)
    with pytest.raises(InputError, match=message):
        load_pretrained(build("resnet50_w8", 3), as_checkpoint(tensors, tmp_path), image_size=32)


def test_old_files_without_batch_counters_load(tmp_path):
    tensors = {
        k: v
        for k, v in build("resnet50_w8", 10).state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    load_pretrained(build("resnet50_w8", 3), as_checkpoint(tensors, tmp_path), image_size=32)


def test_auxiliary_classifiers_of_the_file_are_passed_over(tmp_path):
    tensors = build("googlenet", 10).state_dict()
    tensors["aux1.fc2.weight"] = torch.zeros(10, 1024)
    load_pretrained(build("googlenet", 3), as_checkpoint(tensors, tmp_path), image_size=224)


def test_position_embedding_is_interpolated_and_said(tmp_path, capsys):
    source = build("vit_small", 10, image_size=224)
    position = torch.linspace(0, 1, 14).repeat(14)  # grows from left to right
    with torch.no_grad():
        source.encoder.pos_embedding[0, 1:] = position[:, None]
        source.encoder.pos_embedding[0, 0] = 7.0
    before = source.encoder.pos_embedding.clone()
    model = build("vit_small", 3, image_size=112)
    load_pretrained(model, as_checkpoint(source.state_dict(), tmp_path), image_size=112)
    found = model.encoder.pos_embedding[0]
    assert found.shape == (1 + 49, 384)
    assert (found[0] == 7.0).all()
    assert found[1:8, 0].tolist() == pytest.approx(torch.linspace(0, 1, 7).tolist(), abs=0.02)
    assert "interpolated to 112 pixels" in capsys.readouterr().out
    assert torch.equal(before, source.encoder.pos_embedding)
