"""Where the blocks of known networks are, and which of their weights do not count.

A family is a way to name the tensors of a network. Its `layers` are paths of modules in network
order, each of which is a layer: `#` stands for a number, `~` for a word, `/` ends the name of the
layer where the path has to go on in a certain way, `NAME=` unites several modules under one name,
and `?` marks what not all networks of the family have. The paths in one string alternate, stage by
stage: of "layers.#.downsample layers.#.blocks.#" the order is `layers.0.blocks.0`, ...,
`layers.1.downsample`, `layers.1.blocks.0`, ...
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

# Tensors of two or more dimensions that are neither convolutions nor linear maps, by their name.
TABLES = (
    r"(.*\.)?(pos\w*_(embed|embd|emb|table)\w*|pos_?(embed|embd|emb)\w*|\w+_pos|\w+_tokens?"
    r"|relative_(position|coords)\w*|rel_pos_[hw]|(height|width)_rel|attention_bias\w*"
    r"|position_embeddings?\.weight|mask|freqs|probe|latents)"
)
SHORTCUTS = r".*\.(\w*shortcut\w*|downsample|project|skip)\..*"
GATES = r".*\.(se|se_module|se_early|attn_last|\w*squeeze_exc\w*)\..*"
# Networks that compute a position bias from coordinates.
POSITION_NETWORKS = r".*\.(cpb_mlp|meta_mlp|continuous_position_bias_mlp|rel_pos|pos_embd)\..*"
PATCHES = (
    r"((\w+\.)?(patch_embed(?!\.backbone\.)|conv_proj|embeds|embeddings|pixel_embed)|proj)\..*"
)

# In the blocks of stages; a down-sampling of the stage itself is a transition.
STAGE_SHORTCUTS = r".*\.blocks\.\d+\.(\w+\.)*(\w*shortcut\w*|downsample)\..*"

COMMON = {"table": TABLES, "position network": POSITION_NETWORKS, "gate": GATES}
IN_BLOCKS = {**COMMON, "shortcut": SHORTCUTS}
IN_STAGES = {**COMMON, "shortcut": STAGE_SHORTCUTS}


class Family(NamedTuple):
    """Networks whose tensors are named alike.

    name: for messages.
    layers: paths of the layers, as described above.
    known_by: pattern of a key that all of these networks have, and no others.
    skips: reason -> pattern of keys of two or more dimensions that do not count.
    counts: pattern of the keys of weights; a layer holds nothing but these and what `skips` names.
    uniform: whether all blocks are alike, apart from keys that match `unlike`.
    first: number of the first stage, which may be one more; None where numbers have gaps.
    head: module of the classifier; "" where its name tells.
    lists_classifier: whether the classifier is a point of the paper's figures of this family.
    """

    name: str
    layers: tuple[str, ...]
    known_by: str
    skips: Mapping[str, str] = IN_BLOCKS
    counts: str = r".*weight|.*\.weight_[ih]h_l\d+(_reverse)?"
    uniform: bool = True
    unlike: str = r"(?!)"
    first: int | None = 0
    head: str = ""
    lists_classifier: bool = True


# The families of the paper; only these name a layer of one weight by its module.
PAPER = (
    Family(
        "ResNet",
        ("conv1", "layer#.#"),
        known_by=r"layer\d+\.\d+\.conv\d+\.",
        skips={"shortcut": r"layer\d+\.\d+\.downsample\.0\.weight"},
        counts=r"conv1\.weight|layer\d+\.\d+\.conv\d+\.weight",
        head="fc",
    ),
    Family(
        "DenseNet",
        ("features.conv0", "features.denseblock#.denselayer# features.transition#"),
        known_by=r"features\.denseblock\d+\.denselayer\d+\.",
        skips={},
        counts=r"features\.(conv0|denseblock\d+\.denselayer\d+\.conv[12]|transition\d+\.conv)\.weight",
        head="classifier",
    ),
    Family(
        "ViT",
        ("encoder.layers.encoder_layer_#",),
        known_by=r"encoder\.layers\.encoder_layer_\d+\.",
        skips={
            "patch embedding": r"conv_proj\.(.*\.)?weight",
            "table": TABLES,
        },
        counts=r".*\.(self_attention\.in_proj_|self_attention\.out_proj\.|mlp\.[03]\.)weight",
        head="heads",
        lists_classifier=False,
    ),
)

PLAIN_VIT = {**COMMON, "patch embedding": PATCHES}
STAGES = (
    "stem|patch_embed|stem_dct",
    "stages.#.(downsample|conv_down|patch_embeddings?) stages.#.(conv_exp|global_block) "
    "stages.#.blocks.# stages.#.conv_transition stages.#.conv_transition_b",
    "?final_conv|conv_head|neck",
)
FLAT = (
    "?stem|patch_embed|stem_dct",
    "stages.#.#",
    "?in_conv|final_conv|conv_head",
    "?pre_classifier",
)
HF = "(~.)?"  # name of the base model before Hugging Face's keys

OTHERS = (
    # Plain vision transformers: no patch embedding and no classifier, as in the paper.
    Family(
        "hybrid ViT",
        (
            "patch_embed.backbone.(stem|conv1|conv|0)",
            "?patch_embed.backbone.(stages.#.blocks.#|stages.#.#|layer#.#|#)",
            "?patch_embed.backbone.pool|patch_embed.proj|conv_proj",
            "encoder.layers.encoder_layer_#|blocks.#",
        ),
        known_by=r"patch_embed\.backbone\.",
        uniform=False,
        lists_classifier=False,
    ),
    Family(
        "ViT of another kind",
        (
            "encoder.layers.encoder_layer_#|((encoder|~).)?blocks.#",
            "?(blocks_token_only|cls_attn_blocks).#",
            "?(encoder.)?(attn_pool|neck|aligner|merger)",
        ),
        known_by=r"(encoder\.layers\.encoder_layer_|(\w+\.)?blocks\.)\d+\."
        r"(attn|self_attention|attns\.\d+\.attn|in_proj|attn_in)\b",
        skips={**PLAIN_VIT, "position network": r"(.*\.)?(shared_)?rel_pos\..*|pos_embed\..*"},
        unlike=r".*attn\..*",
        lists_classifier=False,
    ),
    Family(
        "ViT of Hugging Face",
        (HF + "(encoder.)?layers?.#", "?" + HF + "head/(attention|layernorm|mlp|probe).*"),
        known_by=r"(\w+\.)?(encoder\.)?layers?\.\d+\.(attention\.|self_attn\.)",
        skips={**PLAIN_VIT, "pooler": r"(\w+\.)?pooler\..*"},
        lists_classifier=False,
    ),
    Family(
        "Hiera",
        ("patch_embed", "blocks.#"),
        known_by=r"blocks\.\d+\.proj\.",
        skips={**COMMON, "shortcut": r"blocks\.\d+\.proj\..*"},
    ),
    # Convolutional networks.
    Family(
        "DenseNet of another kind",
        ("stem=features.conv~", "features.denseblock#.denselayer# features.transition#"),
        known_by=r"features\.denseblock\d+\.denselayer\d+\.",
        first=1,
    ),
    Family(
        "ResNet of another kind",
        (
            "conv1=conv1|bn1 body.conv1 layer0",
            "?maxpool",
            "(body.)?layer#.#",
        ),
        known_by=r"(body\.)?layer\d+\.\d+\.",
        skips={**IN_BLOCKS, "gate": GATES + r"|.*\.conv\d\.(fc\d|attn\..*)\..*"},
        unlike=r".*\.conv3\..*",
    ),
    Family(
        "ResNet or ConvNeXt of Hugging Face",
        (
            HF + "(embedder|embeddings|patch_embeddings|stem)",
            HF
            + "encoder.stages.#.(downsampling_layer|downsample|embeddings?) "
            + HF
            + "encoder.stages.#.(layers|blocks|stage).#",
        ),
        known_by=r"(\w+\.)?encoder\.stages\.\d+\.(layers|blocks|stage)\.\d+\.",
        skips={
            **COMMON,
            "gate": GATES + r"|.*\.layer\.\d+\.attention\..*",
            "shortcut": r".*\.(layers|blocks)\.\d+\.(shortcut|downsample|proj)\..*",
        },
        uniform=False,
    ),
    Family(
        "CvT or VAN of Hugging Face",
        (HF + "encoder.stages.#.embeddings? " + HF + "encoder.stages.#.layers.#",),
        known_by=r"(\w+\.)?encoder\.stages\.0\.embeddings?\.",
        skips=COMMON,
    ),
    Family("ConvNeXt", STAGES, r"stages\.\d+\.blocks\.\d+\.conv_dw\.", IN_STAGES),
    Family(
        "ResNet v2",
        ("stem", "stages.#.blocks.#"),
        known_by=r"stages\.\d+\.blocks\.\d+\.conv1\.weight",
        skips=IN_STAGES,
    ),
    Family(
        "PVT v2",
        ("patch_embed", "stages.#.downsample stages.#.blocks.#"),
        known_by=r"stages\.\d+\.blocks\.\d+\.attn\.kv\.",
        skips=IN_STAGES,
        unlike=r".*\.attn\.(sr|norm)\..*",
    ),
    Family(
        "DaViT",
        (
            "stem",
            "stages.#.downsample stages.#.blocks.#.#|stages.#.blocks.#.(spatial|channel)_block",
        ),
        known_by=r"stages\.\d+\.blocks\.\d+\.(\d+|spatial_block)\.",
        skips=COMMON,
    ),
    Family(
        "EfficientFormer",
        STAGES,
        known_by=r"stages\.\d+\.blocks\.\d+\.token_mixer\.attention_biases",
        skips=IN_STAGES,
        uniform=False,
        first=None,
    ),
    Family(
        "network of stages.N.blocks.N",
        STAGES,
        known_by=r"stages\.\d+\.blocks\.\d+\.",
        skips={
            **IN_STAGES,
            "gate": GATES + r"|.*\.attn\d?\.fc\d?\..*",
            "position network": POSITION_NETWORKS + r"|stages\.\d+\.pos_emb\..*",
            "table": TABLES + r"|.*\.alpha",
        },
        uniform=False,
        unlike=r".*\.convs\.\d+\..*",
    ),
    Family(
        "network of stages.N.N",
        FLAT,
        known_by=r"stages\.\d+\.\d+\.",
        skips={
            **IN_BLOCKS,
            "gate": GATES + r"|.*\.(attn|attention)\.(fc\d?|mlp_add|conv\d?|ba)\..*",
            "table": TABLES + r"|.*\.pos_embed\..*|stem_dct\.transform\..*",
        },
        uniform=False,
    ),
    Family(
        "RegNet",
        ("stem", "trunk_output.~.block#-#|s#.b#", "?final_conv"),
        known_by=r"(trunk_output\.block\d+\.block\d+-\d+|s\d+\.b\d+)\.",
        skips={**IN_BLOCKS, "shortcut": r".*\.(downsample|proj)\..*|.*\.downsample\.weight"},
    ),
    Family(
        "EfficientNet or MobileNet of timm",
        ("conv_stem=conv_stem|bn1", "blocks.#.#", "?msfa", "?conv_head=conv_head|bn2"),
        known_by=r"blocks\.\d+\.\d+\.(conv\w*|dw_\w+|pw_\w+|ghost\d|bn\d)\.",
        skips={**IN_BLOCKS, "gate": GATES + r"|.*\.routing_fn\..*"},
        uniform=False,
        unlike=r".*\.conv_(dw|pw|pwl)\.\d+\..*",
    ),
    # torchvision's sequences.
    Family(
        "ConvNeXt or EfficientNet of torchvision",
        (r"features.#/[01]\.(weight|bias|running_~|num_~) features.#.#/(block|layer_scale).*",),
        known_by=r"features\.\d+\.\d+\.block\.",
        skips={"gate": r".*\.block\.\d+\.fc[12]\..*"},
        uniform=False,
    ),
    Family(
        "Swin of torchvision",
        (r"features.0", "features.#/(reduction|norm).* features.#.#/(attn|mlp|norm).*"),
        known_by=r"features\.\d+\.\d+\.attn\.",
    ),
    Family(
        "MobileNet of torchvision",
        (r"features.#/[01]\.(weight|bias|running_~|num_~) features.#/(block|conv).*",),
        known_by=r"features\.\d+\.(block|conv)\.\d+\.",
        skips={"gate": r".*\.block\.\d+\.fc[12]\..*"},
        uniform=False,
    ),
    Family(
        "SqueezeNet",
        ("features.0", "features.#/(squeeze|expand).*"),
        known_by=r"features\.\d+\.squeeze\.",
        first=None,
    ),
    Family(
        "ShuffleNet",
        ("conv1", "stage#.#", "conv5"),
        known_by=r"stage\d+\.\d+\.branch2\.",
        unlike=r".*\.branch1\..*",
        first=2,
    ),
    Family(
        "MNASNet",
        ("stem=layers.[0-7]", "layers.#.#", "tail=layers.1[45]"),
        known_by=r"layers\.\d+\.\d+\.layers\.\d+\.",
        first=8,
    ),
    Family(
        "MaxViT of torchvision",
        ("stem", "blocks.#.layers.#"),
        known_by=r"blocks\.\d+\.layers\.\d+\.layers\.",
        skips={**COMMON, "shortcut": r".*\.MBconv\.proj\..*"},
    ),
    Family(
        "GoogLeNet",
        ("stem=conv[1-3]", "inception#[a-z]"),
        known_by=r"inception\d[a-z]\.",
        first=3,
    ),
    Family(
        "Inception v3",
        ("stem=Conv2d_~", "Mixed_#[a-z]"),
        known_by=r"Mixed_\d[a-z]\.",
        uniform=False,
        first=5,
    ),
    # Networks with transitions between their stages.
    Family(
        "Swin",
        (
            HF + "(stem|patch_embed|embeddings)|(~.)?encoder.layers.0.patch_embedding",
            HF
            + "(encoder.)?layers.#.(downsample|patch_embedding) "
            + HF
            + "(encoder.)?layers.#.blocks.#",
        ),
        known_by=r"(\w+\.)?(encoder\.)?layers\.\d+\.blocks\.\d+\.",
        skips=COMMON,
        unlike=r".*spatial_reduction.*|.*\.attention\.layer_norm.*",
    ),
    Family(
        "Segformer, PVT or PoolFormer of Hugging Face",
        (HF + "encoder.patch_embeddings.# " + HF + "encoder.block.#.#",),
        known_by=r"(\w+\.)?encoder\.block\.\d+\.\d+\.",
        skips=COMMON,
        unlike=r".*\.(sr|sequence_reduction)\..*",
    ),
    Family(
        "Segformer",
        (HF + "stages.#.patch_embeddings " + HF + "stages.#.blocks.#",),
        known_by=r"\w+\.stages\.\d+\.blocks\.\d+\.",
        skips=COMMON,
        unlike=r".*\.sequence_reduction\..*",
    ),
    Family(
        "EfficientNet of Hugging Face",
        (HF + "embeddings", HF + "encoder.blocks.#", HF + "encoder.top_conv"),
        known_by=r"(\w+\.)?encoder\.blocks\.\d+\.(depthwise|expansion)",
        uniform=False,
    ),
    Family(
        "MobileNet of Hugging Face",
        (HF + "conv_stem", HF + "layer.#", "?" + HF + "conv_1x1"),
        known_by=r"(\w+\.)?layer\.\d+\.(\w+\.)?convolution\.",
        uniform=False,
    ),
    Family(
        "MobileViT of Hugging Face",
        (
            HF + "conv_stem",
            HF + "encoder.layer.#.layer.# " + HF + "encoder.layer.#/[^l].*",
            "?" + HF + "conv_1x1_exp",
        ),
        known_by=r"(\w+\.)?encoder\.layer\.\d+\.layer\.\d+\.",
        uniform=False,
    ),
    Family(
        "EfficientFormer or SwiftFormer of Hugging Face",
        (
            HF + "patch_embed",
            HF
            + "encoder.(network|intermediate_stages).#/(proj|projection|norm).* "
            + HF
            + "encoder.(network|intermediate_stages).#.(meta~.)?blocks.#",
            "?" + HF + "encoder.last_stage.~.blocks.#",
        ),
        known_by=r"(\w+\.)?encoder\.(network|intermediate_stages)\.\d+\.",
        skips=COMMON,
        uniform=False,
        first=None,
    ),
    Family(
        "PP-LCNet",
        ("encoder.convolution", "encoder.blocks.#.layers.#", "last_convolution"),
        known_by=r"encoder\.blocks\.\d+\.layers\.\d+\.depthwise",
        uniform=False,
    ),
    Family(
        "ImageGPT",
        ("transformer.h.#",),
        known_by=r"transformer\.h\.\d+\.attn\.",
        skips={"table": r"transformer\.w[tp]e\.weight|.*\.attn\.bias"},
        lists_classifier=False,
    ),
    # Others of timm.
    Family(
        "MLP-Mixer",
        ("stem", "blocks.#"),
        known_by=r"blocks\.\d+\.(mlp|linear)_(tokens|channels)\.",
    ),
    Family("ConvMixer", ("stem", "blocks.#"), known_by=r"blocks\.\d+\.0\.fn\."),
    Family("Xception", ("stem", "blocks.#"), known_by=r"blocks\.\d+\.stack\.", uniform=False),
    Family(
        "Xception of legacy",
        ("stem=conv[12]", "block#", "conv[34]"),
        known_by=r"block\d+\.rep\.",
        uniform=False,
    ),
    Family(
        "Twins",
        ("patch_embeds.# blocks.#.# pos_block.#",),
        known_by=r"patch_embeds\.\d+\.",
        skips={"gate": GATES},
        uniform=False,
    ),
    Family(
        "CoaT",
        (
            "patch_embed# serial_blocks#.#",
            "?cpe#",
            "?crpe#",
            "?parallel_blocks.#",
        ),
        known_by=r"serial_blocks\d+\.\d+\.",
        uniform=False,
    ),
    Family(
        "CrossViT",
        ("blocks.#.blocks.#.# blocks.#/(projs|fusion|revert_projs).*",),
        known_by=r"blocks\.\d+\.blocks\.\d+\.\d+\.",
        skips={**PLAIN_VIT, "table": r"pos_embed_\d|cls_token_\d"},
        uniform=False,
        lists_classifier=False,
    ),
    Family(
        "DLA",
        (
            "base_layer",
            "level[01]",
            r"level#(.tree\d)*/(conv|bn|convs|bns)(\d|\.).* level#(.tree\d)*.root",
        ),
        known_by=r"level\d+\.tree\d",
        uniform=False,
        first=None,
    ),
    Family(
        "DPN",
        ("features.conv1_1", "features.conv#_#"),
        known_by=r"features\.conv\d+_\d+\.c1x1_a",
        uniform=False,
        first=None,
    ),
    Family(
        "Inception v4",
        ("stem=features.[0-2]", "features.#"),
        known_by=r"features\.\d+\.branch\d",
        uniform=False,
        first=3,
    ),
    Family(
        "Inception-ResNet v2",
        (
            "stem=conv2d_[1-4]~",
            "mixed_5b",
            "repeat.#",
            "mixed_6a",
            "repeat_1.#",
            "mixed_7a",
            "repeat_2.#",
            "block8",
            "conv2d_7b",
        ),
        known_by=r"repeat_1\.\d+\.",
        uniform=False,
    ),
    Family(
        "NASNet",
        (
            "conv_?0",
            "cell_stem_#",
            "cell_[0-5]",
            "?reduction_cell_0",
            "cell_([6-9]|1[01])",
            "?reduction_cell_1",
            "?cell_1[2-7]",
        ),
        known_by=r"cell_stem_\d\.",
        uniform=False,
        first=None,
    ),
    Family(
        "NesT",
        ("patch_embed", "levels.#.pool levels.#.transformer_encoder.#"),
        known_by=r"levels\.\d+\.transformer_encoder\.",
    ),
    Family(
        "PiT",
        ("patch_embed", "transformers.#.pool transformers.#.blocks.#"),
        known_by=r"transformers\.\d+\.blocks\.\d+\.",
    ),
    Family(
        "RDNet",
        ("stem", "dense_stages.#.#/(weight|bias) dense_stages.#.#.dense_block#", "?norm_~"),
        known_by=r"dense_stages\.\d+\.\d+\.",
        uniform=False,
        first=None,
    ),
    Family(
        "ReXNet",
        ("stem", r"features.#"),
        known_by=r"features\.\d+\.conv_dw\.",
        uniform=False,
    ),
    Family(
        "SelecSLS",
        ("stem", "features.#", "head.#"),
        known_by=r"features\.\d+\.conv6\.",
        uniform=False,
    ),
    Family(
        "Visformer",
        ("stem", "(patch_embed)# stage#.#"),
        known_by=r"stage\d+\.\d+\.attn\.",
        uniform=False,
        first=1,
    ),
    Family(
        "VOLO",
        ("patch_embed", "network.#/(proj|pos).* network.#.#", "post_network.#"),
        known_by=r"network\.\d+\.\d+\.",
        uniform=False,
    ),
    Family(
        "HRNet",
        (
            "stem=conv[12]",
            "layer1.#",
            "stage#.# transition#",
            "incre_modules.#.# downsamp_modules.#",
            "final_layer",
        ),
        known_by=r"stage\d+\.\d+\.branches\.",
        uniform=False,
        first=None,
    ),
)
FAMILIES = (*PAPER, *OTHERS)

# Of no family: every weight is a layer.
UNKNOWN = Family("", (), known_by=r"(?!)", skips={"table": TABLES}, uniform=False)

# Names of modules that hold the classifier, a number may follow; then of those that hold another
# one, for training only.
HEAD = (
    r"(fc|classifier|classif|head|heads|linear|output|logits|score|(last|mlp|cls)_(linear|head)"
    r"|cls_classifier)\d*"
)
# Modules that come first, by the start of their keys.
STEM = r"\w*(stem|embed)|conv_?(in|0|1|first)?\.|(first|init|input)"
AUXILIARY = r"aux\w*|Aux\w*|heads?_dist|dist(illation)?_(head|classifier)|classifier_distill?"
# Weights that are stored in another form, and what makes plain ones of them.
REWRITTEN = {
    "is a low-rank or other addition to a weight; merge it into the weights first "
    "(merge_and_unload)": (r".*(lora_|loha_|lokr_|hada_|\.oft_|\.boft_|adapter|.\.base_layer\.).*"),
    "is re-parametrised; make a plain weight of it first "
    "(torch.nn.utils.parametrize.remove_parametrizations)": r".*parametrizations\..*",
    "is pruned or spectrally normalised; make a plain weight of it first "
    "(prune.remove, remove_spectral_norm)": r".*weight_(orig|mask)",
    "is normalised by its norm; make a plain weight of it first (remove_weight_norm)": (
        r".*weight_[gv]"
    ),
}


class Path(NamedTuple):
    """A path of the table, compiled: where its modules come in network order, and their keys."""

    segment: int
    rank: int
    name: str
    pattern: re.Pattern


class Group(NamedTuple):
    """A module of the table in a file. ends: what follows its name in each key -> key."""

    name: str
    path: Path
    numbers: tuple[int, ...]
    ends: dict[str, str]

    @property
    def position(self) -> tuple:
        """Sorts in network order: within a segment of the table stages alternate."""
        stage = self.numbers[0] if self.numbers else -1
        return self.path.segment, stage, self.path.rank, self.numbers, natural(self.name)


@functools.cache
def paths_of(layers: tuple[str, ...]) -> list[Path]:
    """Return the paths of a family, compiled."""
    paths = []
    for segment, text in enumerate(layers):
        for rank, path in enumerate(text.removeprefix("?").split()):
            name, _, path = path.rpartition("=")
            path, _, end = path.partition("/")
            # Nine digits at most: int() refuses thousands, which a broken file may hold.
            for sign, regex in ((".", r"\."), ("(", "(?:"), ("#", r"(\d{1,9})"), ("~", r"\w+")):
                path = path.replace(sign, regex)
            end = end.replace("~", r"\w+") or ".+"
            pattern = re.compile(rf"(?P<module>{path})\.(?P<end>{end})")
            paths.append(Path(segment, rank, name, pattern))
    return paths


def find_modules(keys: Iterable[str], family: Family) -> list[Group]:
    """Return the modules of the table that are among the keys, in network order."""
    groups: dict[str, Group] = {}
    for key in keys:
        for path in paths_of(family.layers):
            match = path.pattern.fullmatch(key)
            if match:
                numbers = match.groups()[1 : path.pattern.groupindex["end"] - 1]
                numbers = tuple(int(x) for x in numbers if x is not None)
                name = path.name or match["module"]
                module = groups.setdefault(name, Group(name, path, numbers, {}))
                module.ends[key if path.name else match["end"]] = key
                break
    return sorted(groups.values(), key=lambda x: x.position)


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key for sorting that puts 2 before 10."""
    parts = re.split(r"(\d+)", text)
    return [(int(x), "") if x.isdecimal() and len(x) < 10 else (-1, x) for x in parts]
