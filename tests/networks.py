"""Networks of torchvision, timm and Hugging Face, and how step 3 divides each into layers.

    python tests/networks.py

prints a table of all of them. Networks are built on the meta device, so that they cost no memory;
those of Hugging Face are keys and shapes in huggingface.txt (transformers 4.57 and 5.24).
"""

import functools
import itertools
import re
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from models import TORCHVISION, comparison, dialects, layers  # noqa: E402

# Classes of a residual or encoder block, a dense layer, an inception module, ...
BLOCKS = set(
    """
    BasicBlock Bottleneck _DenseLayer CNBlock MBConv FusedMBConv InvertedResidual _InvertedResidual
    ResBottleneckBlock SwinTransformerBlock SwinTransformerBlockV2 EncoderBlock Inception InceptionA
    InceptionB InceptionC InceptionD InceptionE Fire MaxVitLayer DenseLayer PreActBottleneck Block
    EvaBlock ConvNeXtBlock SwinTransformerV2Block DepthwiseSeparableConv EdgeResidual
    UniversalInvertedResidual MixerBlock ResBlock SpatialGatingBlock MetaFormerBlock LayerScaleBlock
    LayerScaleBlockClassAttn XCABlock ClassAttentionBlock Bottle2neck ResNestBottleneck
    SelectiveKernelBasic RepVggBlock GhostBottleneck LevitBlock MaxxVitBlock MbConvBlock
    TransformerBlock2d NormFreeBlock XceptionModule OsaBlock TransformerLayer MultiScaleBlock
    SpatialBlock ChannelBlock ConvBlock SplitTransposeBlock MetaBlock2d MetaBlock1d RepMixerBlock
    HieraBlock LinearBottleneck BottleneckBlock MobileVitBlock
    """.split()
)
TIMM = """
    beit_base_patch16_224 cait_xxs24_224 coatnet_0_224 convnext_tiny convnextv2_tiny cspresnet50
    davit_tiny deit3_small_patch16_224 deit_tiny_distilled_patch16_224 deit_tiny_patch16_224
    densenet121 edgenext_small efficientformer_l1 efficientnet_b0 efficientnetv2_rw_s
    ese_vovnet19b_dw eva02_base_patch14_224 eva02_tiny_patch14_224 fastvit_t8 ghostnet_100
    gmlp_s16_224 hiera_tiny_224 inception_v3 levit_128s maxvit_tiny_tf_224 mixer_b16_224
    mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small mobilevit_s mvitv2_tiny nest_tiny
    nf_resnet50 pit_s_224 poolformer_s12 pvt_v2_b0 regnetx_004 regnety_004 repvgg_a0 res2net50d
    resmlp_12_224 resnest26d resnet18 resnet18d resnet50 resnetv2_50 resnext50_32x4d rexnet_100
    seresnet50 skresnet18 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 twins_svt_small
    vgg16_bn vit_base_patch16_siglip_224 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2
    vit_small_patch16_224 vit_small_patch16_dinov3 vit_small_patch32_224 vit_small_r26_s32_224
    xception41 xcit_nano_12_p16_224
""".split()
# Layers and blocks. Where the layers are more: stem, transitions and classifier.
HUGGING_FACE = {
    "BeitForImageClassification": (12, 12),
    "BeitForImageClassification of transformers 5": (12, 12),
    "BitForImageClassification": (18, 16),
    "CLIPForImageClassification": (12, 12),
    "ConvNextForImageClassification": (23, 18),
    "ConvNextV2ForImageClassification": (23, 18),
    "CvtForImageClassification": (17, 13),
    "Data2VecVisionForImageClassification": (12, 12),
    "DeiTForImageClassification": (12, 12),
    "DeiTForImageClassificationWithTeacher": (12, 12),
    "Dinov2ForImageClassification": (12, 12),
    "Dinov2ForImageClassification of transformers 5": (12, 12),
    "Dinov2WithRegistersForImageClassification": (12, 12),
    "EfficientNetForImageClassification": (58, 55),
    "FocalNetForImageClassification": (17, 12),
    "HieraForImageClassification": (26, 24),
    "LevitForImageClassificationWithTeacher": (30, 28),
    "MobileNetV2ForImageClassification": (19, 16),
    "PoolFormerForImageClassification": (17, 12),
    "PvtForImageClassification": (13, 8),
    "PvtV2ForImageClassification": (13, 8),
    "RegNetForImageClassification": (24, 22),
    "ResNetForImageClassification": (18, 16),
    "SegformerForImageClassification": (13, 8),
    "SegformerForImageClassification of transformers 5": (13, 8),
    "SiglipForImageClassification": (13, 12),
    "SwiftFormerForImageClassification": (21, 16),
    "SwinForImageClassification": (17, 12),
    "SwinForImageClassification of transformers 5": (17, 12),
    "Swinv2ForImageClassification": (17, 12),
    "VanForImageClassification": (26, 21),
    "ViTForImageClassification": (12, 12),
    "ViTForImageClassification of transformers 5": (12, 12),
}


class Network(NamedTuple):
    """A network as its files have it.

    shapes: key -> shape of its floating-point tensors.
    blocks: names of its blocks, as far as its modules are at hand.
    count: number of its blocks.
    head: module of its classifier.
    """

    shapes: dict[str, tuple[int, ...]]
    blocks: list[str]
    count: int
    head: str


class OnMeta(TorchFunctionMode):
    """Parameters on the meta device, other tensors on the CPU (RegNet computes with some)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        return function(*args, **kwargs | ({"device": "meta"} if function is torch.empty else {}))


def build(library, name):
    """The network `name`, with 1000 classes."""
    if library == "timm":
        import timm

        with torch.device("meta"):
            return timm.create_model(name, num_classes=1000)
    from torchvision.models import get_model

    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with OnMeta():
        return get_model(name, weights=None, **options)


def network(library, name):
    """The network `name` of a library, under the keys that step 3 knows it by."""
    if library == "Hugging Face":
        shapes = hugging_face()[name]
        head = next(key for key in reversed(shapes) if re.match(r"(cls_)?(classifier|head)\b", key))
        return Network(shapes, [], HUGGING_FACE[name][1], head.rpartition(".")[0])
    model = build(library, name)
    blocks = []
    for module, x in model.named_modules():
        inside = any(module.startswith(block + ".") for block in blocks)
        if type(x).__name__ in BLOCKS and not inside and list(x.parameters()):
            blocks.append(module)
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    keys = dict(zip(state, dialects.to_torchvision(state), strict=True))
    # The name of a block in today's torchvision, from that of its first tensor.
    firsts = {block: next(key for key in state if key.startswith(block + ".")) for block in blocks}
    for block, key in firsts.items():
        end = "encoder.layers.encoder_layer_" + block.rpartition(".")[2]
        firsts[block] = block if keys[key] == key or "dense" in block else end
    outputs = [k for k, v in state.items() if v.dim() > 1 and v.shape[0] == 1000]
    further = r"aux|.*dist"
    (head,) = [k for k in outputs if not re.match(further, k, re.IGNORECASE)]
    shapes = {keys[k]: tuple(v.shape) for k, v in state.items()}
    return Network(shapes, list(firsts.values()), len(blocks), keys[head].rpartition(".")[0])


@functools.cache
def hugging_face():
    """Name -> shapes of the networks in huggingface.txt."""
    networks = {}
    for line in (ROOT / "tests" / "huggingface.txt").read_text().splitlines():
        if line.startswith("["):
            shapes = networks[line[1:-1]] = {}
        elif not line.startswith("#"):
            text, *shape = line.split()
            parts = [alternatives(x) for x in re.findall(r"\{[^}]*\}|[^{}]+", text)]
            for key in map("".join, itertools.product(*parts)):
                shapes[key] = tuple(map(int, shape))
    return networks


def alternatives(text):
    """What a part of a key stands for: {a,b} for a and b, {0-3} for the numbers 0 to 3."""
    if not text.startswith("{"):
        return [text]
    parts = []
    for part in text[1:-1].split(","):
        first, _, last = part.partition("-")
        parts += map(str, range(int(first), int(last) + 1)) if last else [part]
    return parts


def divided(shapes, head, *, classes=10):
    """Layers of theta_A of these shapes, and theta_FB with another classifier, from two containers.

    As a .pth keeps the keys, and as a safetensors file sorts them.
    """
    outputs = shapes[f"{head}.weight"][0]
    further = {key: (classes, *x[1:]) for key, x in shapes.items() if x[:1] == (outputs,)}
    b = shapes | {k: x for k, x in further.items() if k.startswith(head + ".")}
    results = []
    for in_order in (True, False):
        r, a, b = (
            layers.partition(x if in_order else dict(sorted(x.items())), in_order=in_order)
            for x in (shapes, shapes, b)
        )
        comparison.check_same_network(a, b, name_a="A", name_other="B")
        results.append((a, comparison.layers_to_compare(r, a, b)[0]))
        b = b.shapes
    return results


def all_networks():
    """(library, name) of every network."""
    yield from (("torchvision", name) for name in TORCHVISION)
    yield from (("timm", name) for name in TIMM)
    yield from (("Hugging Face", name) for name in HUGGING_FACE)


def main():
    print("| network | library | layers | blocks | classifier | both containers equal |")
    print("|---|---|---|---|---|---|")
    for library, name in all_networks():
        found = network(library, name)
        (_, pth), (_, safetensors) = divided(found.shapes, found.head)
        head = next((x.name for x in pth if x.is_classifier), f"{found.head}, not a layer")
        equal = "yes" if pth == safetensors else "no"
        print(f"| {name} | {library} | {len(pth)} | {found.count or '-'} | {head} | {equal} |")


if __name__ == "__main__":
    main()
