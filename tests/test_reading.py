"""Files of real life: the network is a part of them, in several files, or of another library."""

import json
import os
import re
import shutil
import subprocess
import sys

import drawn_images
import pytest
import torch
from checkpoints import (
    ROOT,
    assert_refused,
    resnet_shapes,
    run_script,
    timm_key,
    triple,
    write_triple,
)
from safetensors.torch import save_file

import evaluate
import finetune
from console import InputError, run
from models import build, checkpoint, from_timm
from models.checkpoint import Checkpoint, of_content, of_mapping
from models.comparison import check_architecture
from models.containers import networks
from models.pretrained import load_pretrained

timm = pytest.importorskip("timm")

TRIPLE = triple(resnet_shapes(), 0)
WITHOUT_HEAD = tuple({k: v for k, v in x.items() if "fc" not in k} for x in TRIPLE)
MATRIX = torch.randn(4, 4)
HEADS = ("fc.", "classifier.", "heads.")


@pytest.fixture
def step_3(step_3):
    """Step 3 in this process, without a figure."""
    return lambda *args: step_3(*args, "--no_plot")


def prefixed(prefix, theta):
    return {prefix + key: value for key, value in theta.items()}


def expected(step_3, folder, contents=TRIPLE):
    """What step 3 prints of the plain files."""
    folder.mkdir()
    ran = step_3(*write_triple(folder, contents))
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout


# Wrappers, and the network as a part of what was trained


@pytest.mark.parametrize("word", ["module", "_orig_mod", "_checkpoint_wrapped_module"])
@pytest.mark.parametrize("files", ["rab", "b"])
@pytest.mark.parametrize("pattern", [r"^(layer\d\.\d)\.", r"^(layer\d)\.", r"^(\w+)\."])
def test_wrapper_word_anywhere_in_a_key(word, files, pattern, step_3, tmp_path):
    contents = [
        {re.sub(pattern, rf"\1.{word}.", k): v for k, v in x.items()} if name in files else x
        for name, x in zip("rab", TRIPLE, strict=True)
    ]
    ran = step_3(*write_triple(tmp_path, contents))
    assert (ran.stdout, ran.stderr) == (expected(step_3, tmp_path / "plain"), "")


def test_wrapper_word_that_tells_two_tensors_apart(step_3, tmp_path):
    content = {**TRIPLE[2], "module.conv1.weight": TRIPLE[2]["conv1.weight"]}
    args = write_triple(tmp_path, (*TRIPLE[:2], content))
    assert_refused(step_3(*args), r"one tensor twice: conv1\.weight, module\.conv1\.weight")


PARTS = {
    "lightning": lambda x: {"state_dict": prefixed("model.", x) | {"criterion.weight": MATRIX}},
    "dino": lambda x: {
        "teacher": prefixed("module.backbone.", x) | {"module.head.0.weight": MATRIX}
    },
    "normalised": lambda x: prefixed("1.", x) | {"0.mean": torch.zeros(3)},
    "deep": lambda x: prefixed("student.net.encoder_q.", x) | {"queue": MATRIX},
}


@pytest.mark.parametrize("files", ["rab", "ra", "b"])
@pytest.mark.parametrize("kind", PARTS)
def test_network_that_is_a_part_is_taken_and_said(kind, files, step_3, tmp_path):
    contents = [
        PARTS[kind](x) if name in files else x for name, x in zip("rab", TRIPLE, strict=True)
    ]
    ran = step_3(*write_triple(tmp_path, contents))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == expected(step_3, tmp_path / "plain")
    lines = ran.stderr.splitlines()
    assert len(lines) == len(files)
    assert all(re.search(r"the network \S+ is taken; left behind: \S+$", line) for line in lines)


def test_prefix_of_the_whole_is_taken_off_in_silence(step_3, tmp_path):
    contents = [prefixed("encoder_q.net.", TRIPLE[0]), prefixed("student.", TRIPLE[1]), TRIPLE[2]]
    ran = step_3(*write_triple(tmp_path, contents))
    assert (ran.stdout, ran.stderr) == (expected(step_3, tmp_path / "plain"), "")


def moco(theta):
    other = {key: value + 1 for key, value in theta.items()}
    both = prefixed("module.encoder_q.", theta) | prefixed("module.encoder_k.", other)
    return {"state_dict": both | {"module.queue": torch.zeros(8, 32)}}


def test_several_networks_are_listed_and_one_is_chosen(step_3, tmp_path):
    contents = [*map(moco, TRIPLE[:2]), TRIPLE[2]]
    args = write_triple(tmp_path, contents)
    assert_refused(step_3(*args), r"a\.pth holds several networks: encoder_q, encoder_k; .*--subt")
    ran = step_3(*args, "--subtree", "encoder_q")
    assert (ran.stdout, ran.stderr) == (expected(step_3, tmp_path / "plain"), "")
    message = r"a\.pth holds no encoder; --subtree can be: encoder_q, encoder_k, queue"
    assert_refused(step_3(*args, "--subtree", "encoder"), message)


@pytest.mark.parametrize("arch", ["resnet50_w8", "densenet121", "vit_small"])
@pytest.mark.parametrize("head", [True, False])
def test_networks_in_a_file(arch, head):
    with torch.device("meta"):
        own = build(arch).state_dict()
    shapes = {k: tuple(v.shape) for k, v in own.items() if head or not k.startswith(HEADS)}
    for keys in (shapes, {timm_key(k): v for k, v in shapes.items()}):
        assert networks(keys) == [""]
        assert networks(prefixed("net.student.", keys)) == ["net.student."]
        parts = {**prefixed("backbone.", keys), "head.0.weight": (8, 8), "head.2.weight": (8, 8)}
        assert networks(parts) == ["backbone."]
        two = {**prefixed("q.", keys), **prefixed("k.", keys), "queue": (8, 8)}
        assert networks(two) == ["q.", "k."]
    assert networks({"layers.0.weight": (8, 3, 3, 3), "layers.1.weight": (4, 8)}) == []
    assert networks({".".join("a" * n) + ".w": (2, 2) for n in range(1, 500)}) == []


def test_subtree_chooses_among_containers(tmp_path):
    content = {"teacher": TRIPLE[0], "student": prefixed("module.backbone.", TRIPLE[1])}
    for name, theta in (("teacher", 0), ("student", 1), ("student.backbone.", 1)):
        read = of_content(content, tmp_path / "x.pth", subtree=name)
        assert (read.container, list(read.tensors)) == (name.split(".")[0], list(TRIPLE[0]))
        assert torch.equal(read.tensors["conv1.weight"], TRIPLE[theta]["conv1.weight"])


def test_mapping_in_memory_is_read_like_a_file():
    read = of_mapping(PARTS["lightning"](TRIPLE[1]), "theta_a")
    assert list(read.tensors) == list(TRIPLE[1])
    assert str(read.path) == "theta_a"
    assert of_mapping(read, "other") is read
    with pytest.raises(InputError, match="theta_a holds no tensors"):
        of_mapping({"x": 1}, "theta_a")


# Containers


def test_safetensors_are_told_by_their_content(step_3, tmp_path):
    args = write_triple(tmp_path, TRIPLE)
    plain = step_3(*args).stdout
    torch.save(TRIPLE[0], tmp_path / "r.safetensors")
    save_file(TRIPLE[2], tmp_path / "b.bin")
    ran = step_3("-r", tmp_path / "r.safetensors", *args[2:4], "-b", tmp_path / "b.bin")
    assert (ran.stdout, ran.stderr) == (plain, "")


def sharded(folder, theta, ending):
    """Write two parts and their index, as save_pretrained does."""
    folder.mkdir()
    name, keys = f"model.{ending}" if ending == "safetensors" else "pytorch_model.bin", list(theta)
    stem, _, ending = name.partition(".")
    files = {}
    for i, part in enumerate((keys[::2], keys[1::2]), start=1):
        file = f"{stem}-{i:05d}-of-00002.{ending}"
        (save_file if ending == "safetensors" else torch.save)(
            {k: theta[k] for k in part}, folder / file
        )
        files |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (folder / f"{name}.index.json").write_text(json.dumps(index, indent=2))
    return folder


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_folder_and_index_of_save_pretrained_are_read_whole(ending, step_3, tmp_path):
    args = write_triple(tmp_path, TRIPLE)
    plain = step_3(*args).stdout
    folder = sharded(tmp_path / "b", TRIPLE[2], ending)
    (index,) = folder.glob("*.json")
    for path in (folder, index):
        ran = step_3(*args[:-1], path)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, plain, "")
    whole = tmp_path / "whole"
    whole.mkdir()
    if ending == "safetensors":
        save_file(TRIPLE[2], whole / "model.safetensors")
    else:
        torch.save(TRIPLE[2], whole / "pytorch_model.bin")
    assert step_3(*args[:-1], whole).stdout == plain

    (part, *_) = folder.glob("*00002-of*")
    part.unlink()
    assert_refused(step_3(*args[:-1], folder), "00002-of-00002.* is missing, which .* lists")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "no index of one"),
        ('{"weight_map": 3}', "no index of one"),
        ('{"weight_map": {"x": "b.json"}}', "lists itself"),
        ('{"weight_map": {"x": "a.pth"}}', r"lists x, which \S+a\.pth lacks"),
    ],
)
def test_json_that_is_no_index(text, message, step_3, tmp_path):
    args = write_triple(tmp_path, TRIPLE)
    (tmp_path / "b.json").write_text(text)
    assert_refused(step_3(*args[:-1], tmp_path / "b.json"), message)


def test_distributed_tensors_are_refused(step_3, tmp_path):
    args = write_triple(tmp_path, TRIPLE)
    code = (
        "import torch, torch.distributed as d\n"
        "from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh\n"
        f"d.init_process_group('gloo', 'file://{tmp_path}/store', rank=0, world_size=1)\n"
        "x = distribute_tensor(torch.zeros(4, 3), init_device_mesh('cpu', (1,)), [Shard(0)])\n"
        f"torch.save({{'conv1.weight': x}}, '{args[-1]}')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert_refused(step_3(*args), "holds distributed tensors, .* save a full state dict")


@pytest.mark.parametrize("file", ["r", "a", "b"])
@pytest.mark.parametrize("how", ["replaced", "written"])
def test_file_that_changes_while_it_is_read(file, how, step_3, tmp_path, monkeypatch):
    args = write_triple(tmp_path, TRIPLE)
    path = tmp_path / f"{file}.pth"
    original = Checkpoint.like

    def disturbed(self, other):
        if self.path == args[-1]:
            if how == "replaced":
                shutil.copy(path, tmp_path / "new")
                os.replace(tmp_path / "new", path)
            else:
                os.utime(path, ns=(1, 1))
        return original(self, other)

    monkeypatch.setattr(Checkpoint, "like", disturbed)
    assert_refused(step_3(*args), rf"{file}\.pth was written or replaced while it was read")


@pytest.mark.parametrize("copy", [False, True])
def test_r_and_b_are_one_file(copy, step_3, tmp_path):
    args = write_triple(tmp_path, (TRIPLE[0], TRIPLE[1], TRIPLE[0]))
    message = "r.pth and .*b.pth hold the same" if copy else "-r and -b are the same file"
    assert_refused(step_3(*args[:-1], args[-1] if copy else args[1]), message)


# Names of other libraries


@pytest.fixture(scope="module")
def vit():
    """Triples of a ViT-small, in torchvision's keys and in timm's."""
    with torch.device("meta"):
        shapes = [(k, tuple(v.shape)) for k, v in build("vit_small", 7).state_dict().items()]
    contents = triple(shapes, 1, head=("heads.head.weight", "heads.head.bias"), num_classes=5)
    return contents, tuple({timm_key(k): v for k, v in x.items()} for x in contents)


@pytest.mark.parametrize("timms", ["rab", "b", "ra", "r", "a", ""])
def test_names_are_those_of_a_whatever_the_others_have(timms, vit, step_3, tmp_path):
    contents = [vit[name in timms][i] for i, name in enumerate("rab")]
    ran = step_3(*write_triple(tmp_path, contents), "--json", tmp_path / "t.json")
    assert (ran.returncode, ran.stderr) == (0, "")
    record = json.loads((tmp_path / "t.json").read_text())
    layers = record["results"][0]["layers"]
    first = "blocks.0" if "a" in timms else "encoder.layers.encoder_layer_0"
    qkv = ".attn.qkv.weight" if "a" in timms else ".self_attention.in_proj_weight"
    assert (len(layers), layers[0]["name"]) == (12, first)
    assert first + qkv in layers[0]["tensors"]
    assert record["arch"] == "vit_small"
    plain = step_3(*write_triple(tmp_path, vit[0])).stdout
    assert ran.stdout.splitlines()[0] == plain.splitlines()[0]


def test_prefix_of_an_unknown_network(step_3, tmp_path):
    shapes = [("features.0.weight", (4, 3, 3, 3)), ("features.3.weight", (8, 4, 3, 3))]
    contents = triple([*shapes, ("classifier.weight", (6, 8))], 0, head=("classifier.weight",))
    plain = step_3(*write_triple(tmp_path, contents)).stdout
    contents = [*contents[:2], prefixed("net.", contents[2])]
    assert step_3(*write_triple(tmp_path, contents)).stdout == plain


def test_substitute_of_timms_network_is_said_to_be_torchvisions(vit, step_3, tmp_path):
    _, _, flag_a, a, flag_b, b = write_triple(tmp_path, vit[1])
    options = ("-r", "random:0", flag_a, a, flag_b, b)
    ran = step_3(*options)
    assert ran.returncode == 0
    assert re.search("drawn as torchvision initialises vit_small, .* timm/NAME", ran.stderr)
    ran = step_3(*options, "--arch", "timm/vit_small_patch16_224")
    assert (ran.returncode, "initialises" in ran.stderr) == (0, False)


@pytest.mark.parametrize("arch", ["resnet50", "convnext_tiny", "timm/resnet18"])
def test_arch_of_another_network_is_refused(arch, step_3, tmp_path):
    with torch.device("meta"):
        a = Checkpoint(tmp_path / "a.pth", build("swin_t").state_dict(), "")
    check_architecture(a, "swin_t")
    with pytest.raises(InputError, match=r"a\.pth .* --arch \S+ .* different networks"):
        check_architecture(a, arch)
    args = write_triple(tmp_path, TRIPLE)
    assert_refused(step_3(*args, "--arch", arch), "different networks")


@pytest.mark.parametrize(
    "name",
    ["beit_base_patch16_224", "deit_small_distilled_patch16_224", "vit_small_patch14_dinov2"],
)
def test_what_is_no_vit_of_torchvision_is_not_called_one(name, tmp_path):
    with torch.device("meta"):
        theta = Checkpoint(tmp_path / "a.pth", timm.create_model(name).state_dict(), "")
    assert not re.search("vit_", theta.network)
    with torch.device("meta"):
        theta = Checkpoint(tmp_path / "a.pth", build("timm/vit_base_patch16_224").state_dict(), "")
    assert theta.network == "vit_b_16"


# Networks of timm, and starting from files of others


def test_name_of_timm_that_is_none(monkeypatch):
    with pytest.raises(InputError, match=r"no network 'convnext_tin'; did you mean .*_tiny"):
        from_timm.check("convnext_tin")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"pip install -r requirements-networks\.txt"):
        from_timm.check("convnext_tiny")
    assert (ROOT / "requirements-networks.txt").is_file()


def saved(theta, path):
    torch.save(theta, path)
    return checkpoint.read(path)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_timms_own_keys_go_in_and_positions_are_interpolated(name, tmp_path, capsys):
    source = build(f"timm/{name}", 7)
    model = build(f"timm/{name}", 5, image_size=32)
    theta = saved(source.state_dict(), tmp_path / "a.pth")
    fresh = load_pretrained(model, theta, image_size=32, arch=f"timm/{name}")
    heads = ["head", "head_dist"] if "distilled" in name else ["head"]
    assert fresh == [f"{x}.{y}" for x in heads for y in ("weight", "bias")]
    assert torch.equal(model.blocks[3].attn.qkv.weight, source.blocks[3].attn.qkv.weight)
    assert "pos_embed interpolated to 32 pixels" in capsys.readouterr().out


def test_keys_of_the_other_library_are_translated(tmp_path):
    source = build("timm/vit_small_patch16_224", 7)
    model = build("vit_small", 5)
    load_pretrained(model, saved(source.state_dict(), tmp_path / "a.pth"), image_size=224)
    theirs = build("timm/vit_small_patch16_224", 5)
    load_pretrained(theirs, saved(model.state_dict(), tmp_path / "b.pth"), image_size=224)
    assert torch.equal(theirs.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)


def test_decoder_and_second_network_outside_are_left_behind_and_said(tmp_path, capsys):
    source = build("timm/vit_tiny_patch16_224", 7)
    content = {**source.state_dict(), "queue": MATRIX, "decoder_blocks.0.attn.weight": MATRIX}
    model = build("timm/vit_tiny_patch16_224", 5)
    load_pretrained(model, saved(content, tmp_path / "a.pth"), image_size=224)
    said = capsys.readouterr().err
    assert "left behind: queue, decoder_blocks.0.attn.weight" in said
    assert torch.equal(model.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight)


def with_registers():
    return timm.create_model("vit_small_patch16_224", reg_tokens=4).state_dict()


def changed(key, change):
    theta = build("resnet50_w8", 7).state_dict()
    theta[key] = change(theta[key])
    return theta


DOES_NOT_FIT = {
    "registers": (with_registers, "vit_small", r"vit_small: encoder\.pos_embedding has 201 pos"),
    "other": (lambda: build("mobilenet_v3_small").state_dict(), "resnet50",
              r"resnet50 \(the default\): .*; add --arch mobilenet_v3_small"),
    "timm": (lambda: build("timm/convnext_atto").state_dict(), "resnet50_w8",
             r"resnet50_w8: .* name its network with --arch \(one of timm: timm/NAME\)"),
    "int8": (lambda: changed("conv1.weight", lambda x: x.to(torch.int8)), "resnet50_w8",
             r"conv1\.weight is int8; dequantise"),
    "float8": (lambda: changed("conv1.weight", lambda x: x.to(torch.float8_e4m3fn)), "resnet50_w8",
               r"conv1\.weight is float8_e4m3fn; dequantise"),
    "float64": (lambda: changed("bn1.weight", lambda x: x.double() * 1e300), "resnet50_w8",
                r"a\.pth: bn1\.weight holds numbers too large for float32"),
    "nan": (lambda: changed("bn1.running_var", lambda x: x / 0), "resnet50_w8",
            r"a\.pth: bn1\.running_var holds NaN or infinity"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DOES_NOT_FIT)
def test_file_that_cannot_start_a_network_is_one_line(kind, tmp_path):
    make, arch, message = DOES_NOT_FIT[kind]
    theta = saved(make(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=message):
        load_pretrained(build(arch, 3), theta, image_size=224, arch=arch)
    with pytest.raises(InputError, match=message):
        evaluate.load_network(theta, arch, image_size=224)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return drawn_images.draw(folder, task="shapes", classes=2, train_per_class=8, val_per_class=4)


def call(module, *options):
    return run(lambda: module.main([str(option) for option in options]))


def test_network_of_timm_through_the_three_steps(images, step_3, tmp_path, capsys):
    r, a, b = (tmp_path / f"{name}.pth" for name in "rab")
    network = ("--arch", "timm/convnext_atto")
    done = run_script("pretrain_on_ImageNet.py", *network, "--max_epoch", 0, "-r", r, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    task = ("--dataset", "Folder", "--data_dir", images, "--image_size", 32, "--num_workers", 0)
    for parent, child in ((r, a), (a, b)):
        options = (*task, *network, "--batch_size", 8, "--max_epoch", 1, "--keep", "last")
        assert call(finetune, *options, "-a", parent, "-b", child) == 0
    out = capsys.readouterr().out
    assert out.count("normalised with mean 0.485") == 1  # a.pth has a record
    assert "head.fc.weight, head.fc.bias (new: 2 classes)" in out
    timm.create_model("convnext_atto", num_classes=2).load_state_dict(torch.load(b))
    ran = step_3("-r", r, "-a", a, "-b", b, *network)
    assert ran.returncode == 0, ran.stderr
    assert call(evaluate, *task, *network, "-b", b) == 0
    accuracy = json.loads(b.with_suffix(".json").read_text())["val_acc"]
    assert f"accuracy {accuracy:.2f} %" in capsys.readouterr().out


def test_theta_r_along_the_way_that_is_not_finite(images, tmp_path, capsys):
    torch.save(changed("layer2.0.conv1.weight", lambda x: x / 0), tmp_path / "r.pth")
    torch.save(build("resnet50_w8", 7).state_dict(), tmp_path / "a.pth")
    code = call(
        finetune,
        *("--dataset", "Folder", "--data_dir", images, "--image_size", 32, "--num_workers", 0),
        *("--arch", "resnet50_w8", "-r", tmp_path / "r.pth", "-a", tmp_path / "a.pth"),
        *("-b", tmp_path / "b.pth"),
    )
    err = capsys.readouterr().err
    assert code == 2
    assert re.search(r"error: \S+r\.pth: layer2\.0\.conv1\.weight holds NaN", err), err


def test_step_3_loads_neither_torchvision_nor_timm(tmp_path):
    args = [str(x) for x in write_triple(tmp_path, TRIPLE)]
    code = (
        "import sys, cal_transferability\n"
        f"cal_transferability.main({[*args, '--no_plot']!r})\n"
        "assert not {'torchvision', 'timm'} & sys.modules.keys()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
