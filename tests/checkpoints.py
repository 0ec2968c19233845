"""Parameter files that the tests make, and ways to run a script on them."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

import cal_transferability
import console
from safe_io import sha256

ROOT = Path(__file__).resolve().parent.parent
HEAD = ("fc.weight", "fc.bias")


def run_script(name, *args, cwd, timeout=120):
    """Run the script in a process of its own, as a user does."""
    command = [sys.executable, str(ROOT / name), *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)


def call_step_3(capsys, *args):
    """Run step 3 in this process, which spares the import of torch; same result as `run_script`."""
    argv = [str(arg) for arg in args]
    with warnings.catch_warnings(record=True) as caught:
        # What a process of its own would show on stderr.
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", DeprecationWarning)
        code = console.run(lambda: cal_transferability.main(argv))
    out, err = capsys.readouterr()
    err += "".join(f"{w.category.__name__}: {w.message}\n" for w in caught)
    return subprocess.CompletedProcess(argv, code, out, err)


def assert_refused(result, *messages, out=""):
    """Bad input: exit code 2 and a single line on stderr, which matches all of `messages`."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == out
    assert re.fullmatch(r"error: [^\x00-\x1f\x7f]+\n", result.stderr), result.stderr
    for message in messages:
        assert re.search(message, result.stderr), result.stderr


def triple(shapes, seed, *, head=HEAD, num_classes=10):
    """Dicts of float32 tensors theta_r, theta_A, theta_FB, the same on every machine.

    shapes: (name, shape) of every parameter in the order of the network. Theta_r is normal with
    deviation 0.05, theta_A lies 0.02 from it, theta_FB 0.002 to 0.014 from theta_A; the head of
    theta_FB is a new one with `num_classes` rows.
    """
    rng = np.random.default_rng(seed)

    def normal(shape, deviation):
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(deviation)

    r, a, b = {}, {}, {}
    for i, (name, shape) in enumerate(shapes):
        r[name] = normal(shape, 0.05)
        a[name] = r[name] + normal(shape, 0.02)
        if name in head:
            b[name] = normal((num_classes, *shape[1:]), 0.02)
        else:
            b[name] = a[name] + normal(shape, 0.002 * (1 + i % 7))
    return tuple({k: torch.from_numpy(v) for k, v in x.items()} for x in (r, a, b))


def resnet_shapes(blocks=(1, 1, 1, 1), *, width=4, classes=6, convolutions=3):
    """(name, shape) of the parameters of a ResNet with few channels, as torchvision names them.

    blocks: number of blocks in each of the four stages. width: channels of the stem.
    convolutions: in a block, 3 in a bottleneck and 2 in a basic block.
    """
    shapes = [("conv1.weight", (width, 3, 7, 7)), *normalisation("bn1", width)]
    before = width
    for stage, count in enumerate(blocks, start=1):
        planes = width * 2 ** (stage - 1)
        out = planes * 4 if convolutions == 3 else planes
        for block in range(count):
            name = f"layer{stage}.{block}"
            channels = [before, planes, planes, out] if convolutions == 3 else [before, out, out]
            kernels = [1, 3, 1] if convolutions == 3 else [3, 3]
            for i, size in enumerate(kernels, start=1):
                shape = (channels[i], channels[i - 1], size, size)
                shapes.append((f"{name}.conv{i}.weight", shape))
                shapes += normalisation(f"{name}.bn{i}", channels[i])
            if before != out:
                shapes.append((f"{name}.downsample.0.weight", (out, before, 1, 1)))
                shapes += normalisation(f"{name}.downsample.1", out)
            before = out
    return [*shapes, ("fc.weight", (classes, before)), ("fc.bias", (classes,))]


def normalisation(name, channels):
    """(name, shape) of the parameters of a BatchNorm."""
    return [(f"{name}.weight", (channels,)), (f"{name}.bias", (channels,))]


def constant_triple(names, r=0.0, a=1.0, b=3.0, shape=(2, 2), dtype=torch.float32):
    """Three dicts of constant tensors; with the defaults T is 3 / 2 in every layer."""
    return tuple({n: torch.full(shape, value, dtype=dtype) for n in names} for value in (r, a, b))


def write_triple(folder, contents, *, names=("r.pth", "a.pth", "b.pth"), **options):
    """torch.save the contents and return the arguments -r PATH -a PATH -b PATH of step 3."""
    args = []
    for flag, name, content in zip(("-r", "-a", "-b"), names, contents, strict=True):
        torch.save(content, folder / name, **options)
        args += [flag, folder / name]
    return args


def write_record(path, **changes):
    """Write what a training run writes beside its checkpoint, as far as step 3 reads it."""
    record = {
        "sha256": sha256(path),
        "steps": 3910,
        "epochs": 10,
        "kept": "best",
        "kept_epoch": 7,
        "train_loss": 0.12345,
        "val_acc": 81.25,
        "parent_sha256": None,
        **changes,
    }
    path.with_suffix(".json").write_text(json.dumps(record))


def shapes_of(model):
    """Key -> shape of the floating-point tensors of a network."""
    return {k: tuple(v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}


def timm_key(key):
    """The name that timm gives to a tensor of torchvision's vision transformer."""
    for ours, timms in (
        ("class_token", "cls_token"),
        ("encoder.pos_embedding", "pos_embed"),
        ("conv_proj.", "patch_embed.proj."),
        ("encoder.layers.encoder_layer_", "blocks."),
        (".ln_1.", ".norm1."),
        (".ln_2.", ".norm2."),
        (".self_attention.in_proj_", ".attn.qkv."),
        (".self_attention.out_proj.", ".attn.proj."),
        (".mlp.0.", ".mlp.fc1."),
        (".mlp.3.", ".mlp.fc2."),
        ("encoder.ln.", "norm."),
        ("heads.head.", "head."),
    ):
        key = key.replace(ours, timms)
    return key


def old_densenet_key(key):
    """The name that a tensor of a DenseNet had in torchvision's first releases."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key)
