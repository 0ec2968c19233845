"""Reading parameter files through step 3: every form that a state dict comes in, and what is none.

Unless said otherwise r = 0, A = 1, B = 3 in all layers, so T = |3 - 0| / |3 - 1| = 1.5.
"""

import argparse
import os
import pickle
import resource
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import assert_refused, constant_triple, run_script, write_triple
from disks import small_disk
from torch import nn

from console import InputError
from models import checkpoint, formats, paths
from safe_io import sha256

NAMES = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"]
LEGACY = {"_use_new_zipfile_serialization": False}


def network(r=0.0, a=1.0, b=3.0):
    """Dicts of a small ResNet, with a head that is another one in B, and an integer buffer."""
    contents = constant_triple(NAMES, r, a, b)
    for content, classes in zip(contents, (1000, 1000, 7), strict=True):
        content["bn1.num_batches_tracked"] = torch.tensor(5)
        content["fc.weight"] = torch.rand(classes, 2)
    return contents


@pytest.fixture
def step_3(step_3):
    """Step 3 in this process, without a figure."""
    return lambda *args: step_3(*args, "--no_plot")


@pytest.fixture
def with_b(step_3, tmp_path):
    """Step 3 on good r and A, and on whatever `make(path)` puts in the place of B."""

    def measure(make):
        args = write_triple(tmp_path, network())
        path = args[-1]
        path.unlink()
        make(path)
        return step_3(*args)

    return measure


def saved(content, **options):
    return lambda path: torch.save(content, path, **options)


def assert_measured(ran, err=""):
    assert (ran.returncode, ran.stderr) == (0, err)
    assert "Layer-wise transferability:  [1.5, 1.5, 1.0]\n" in ran.stdout
    assert "Transferability: 1.50 (mean over 2 layers; " in ran.stdout


# What a state dict may look like

PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "model.",
    "backbone.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.backbone.module.",
]
WRAPPERS = [
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "params",
    "module",
    "teacher",
    "student",
    "model_ema",
    "ema",
]


@pytest.mark.parametrize("files", ["a", "b", "rab"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix_of_all_keys_is_taken_off(prefix, files, step_3, tmp_path):
    contents = [
        {prefix + key: value for key, value in content.items()} if name in files else content
        for name, content in zip("rab", network(), strict=True)
    ]
    assert_measured(step_3(*write_triple(tmp_path, contents)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefix_and_a_layer_that_did_not_move(prefix, name, step_3, tmp_path):
    r, a, b = network()
    b[name] = a[name]
    b = {prefix + key: value for key, value in b.items()}
    ran = step_3(*write_triple(tmp_path, (r, a, b)))
    # Of the block one weight of two stays: (3 + 1) / (2 + 0).
    listed, mean, count = (
        ("[inf, 1.5, 1.0]", "1.50", "1 of 2")
        if name == "conv1.weight"
        else ("[1.5, 2.0, 1.0]", "1.75", "2")
    )
    assert f"Layer-wise transferability:  {listed}\n" in ran.stdout
    assert f"Transferability: {mean} (mean over {count} layers" in ran.stdout


def test_buffer_without_the_prefix_does_not_keep_it_on(with_b):
    content = {f"module.{key}": value for key, value in network()[2].items()}
    content["n_averaged"] = torch.tensor(12)  # as torch.optim.swa_utils.AveragedModel saves it
    assert_measured(with_b(saved(content)))


def test_part_of_a_key_that_looks_like_a_prefix_stays(step_3, tmp_path):
    names = ["model.stem.weight", "model.body.weight", "last.weight"]
    ran = step_3(*write_triple(tmp_path, constant_triple(names)), "--json", tmp_path / "t.json")
    assert ran.returncode == 0
    assert '"name": "model.stem.weight"' in (tmp_path / "t.json").read_text()


@pytest.mark.parametrize("files", ["b", "rab"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapper_is_opened(wrapper, files, step_3, tmp_path):
    contents = [
        {"epoch": 3, "optimizer": {"lr": 0.1}, wrapper: content} if name in files else content
        for name, content in zip("rab", network(), strict=True)
    ]
    assert_measured(step_3(*write_triple(tmp_path, contents)))


def test_wrappers_may_be_nested_and_prefixed(with_b):
    content = {f"module.{key}": value for key, value in network()[2].items()}
    assert_measured(with_b(saved({"model": {"state_dict": OrderedDict(content)}})))


def test_the_first_of_several_wrappers_is_used_and_said(with_b):
    other = {key: value + 5 for key, value in network()[2].items()}
    ran = with_b(saved({"ema": other, "model": network()[2], "teacher": other}))
    path = ran.args[5]
    assert_measured(
        ran, f"warning: {path} holds model, teacher, ema; using 'model' (--subtree takes another)\n"
    )


def test_wrapper_that_nobody_knows_is_refused_with_its_keys(with_b):
    ran = with_b(saved({"epoch": 3, "weights": network()[2]}))
    assert_refused(ran, r"b\.pth holds no tensors; its top-level keys are: epoch, weights")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("files", ["a", "rab"])
def test_other_precisions_are_compared_exactly(dtype, files, step_3, tmp_path):
    # In float16 or bfloat16 the difference of 1 to 2 ** -9 would be rounded.
    contents = [
        {k: v.to(dtype) if name in files and v.is_floating_point() else v for k, v in x.items()}
        for name, x in zip("rab", network(2**-9, 1.0, 3 - 2**-8), strict=True)
    ]
    if "b" in files and dtype is torch.bfloat16:
        contents[2] = {**contents[2], **dict.fromkeys(NAMES, torch.full((2, 2), 3.0).to(dtype))}
    ran = step_3(*write_triple(tmp_path, contents), "--json", tmp_path / "t.json")
    assert ran.returncode == 0, ran.stderr
    b = contents[2]["conv1.weight"][0, 0].item()
    assert f'"transferability": {(b - 2**-9) / (b - 1)},' in (tmp_path / "t.json").read_text()


def test_eight_bit_floats_are_codes(with_b):
    content = {k: v.to(torch.float8_e4m3fn) for k, v in network()[2].items()}
    message = r"b\.pth: conv1\.weight is float8_e4m3fn; dequantise the file first"
    assert_refused(with_b(saved(content)), message)


def test_legacy_format_is_read(step_3, tmp_path):
    assert_measured(step_3(*write_triple(tmp_path, network(), **LEGACY)))


def test_parameters_and_shared_memory_are_read(with_b):
    """A state dict of live parameters, some of them slices of one storage or not contiguous."""
    content = {k: nn.Parameter(v) for k, v in network()[2].items() if v.is_floating_point()}
    content[NAMES[0]] = torch.full((4, 2), 3.0)[1:3]
    content[NAMES[1]] = torch.full((2, 2), 3.0).T
    assert_measured(with_b(saved(content)))


BESIDE = {
    "args": argparse.Namespace(lr=0.1, data_dir=Path("images")),
    "path": Path("somewhere"),
    "accuracy": np.float64(81.25),
    "best": np.float32(0.5),
    "step": np.int64(3),
    "flag": np.bool_(True),
    "history": np.arange(3.0),
    "counts": np.arange(3),
    "type": np.dtype("float32"),
}


@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_harmless_things_beside_the_weights_are_read(beside, options, with_b):
    assert_measured(with_b(saved({"model": network()[2], beside: BESIDE[beside]}, **options)))


# What is no state dict


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda content, path: torch.save(content, path, **LEGACY),
        lambda content, path: path.write_bytes(pickle.dumps(content)),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=0)),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    ],
    ids=["zip", "legacy", "pickle", "pickle_0", "pickle_2"],
)
def test_code_in_a_pickle_is_never_run(save, with_b, tmp_path):
    marker = tmp_path / "was_run"
    ran = with_b(lambda path: save({**network()[2], "x": Payload(marker)}, path))
    assert_refused(ran, r"b\.pth ")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_class_that_a_pickle_needs_is_named(options, with_b, tmp_path):
    ran = with_b(saved({"x": Payload(tmp_path / "was_run")}, **options))
    assert_refused(ran, r"b\.pth needs the Python class \w+\.mkdir to load, .* refused")


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_whole_module_is_refused_by_its_class(options, with_b):
    ran = with_b(saved(nn.Linear(2, 2), **options))
    assert_refused(ran, r"class torch\.nn\.modules\.linear\.Linear .* save the model's state_dict")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_torchscript_is_refused(with_b):
    script = torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2))
    assert_refused(with_b(lambda path: torch.jit.save(script, str(path))), "TorchScript")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"checkpoint \S+b\.pth is missing"),
        (lambda path: path.mkdir(), r"b\.pth is a folder; give a checkpoint file"),
        (lambda path: path.touch(), r"b\.pth is empty"),
        (lambda path: path.write_text("hello\nworld\n"), r"b\.pth is not a PyTorch checkpoint"),
        (lambda path: path.write_text("version https://git-lfs\n"), r"b\.pth is not a PyTorch"),
        (lambda path: path.write_bytes(bytes(range(256))), r"b\.pth is not a PyTorch checkpoint"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), r"b\.pth is not a PyTorch"),
        (saved({}), r"b\.pth holds no tensors; its top-level keys are: none"),
        (saved({"epoch": 1, "loss": 0.5}), r"holds no tensors; .* keys are: epoch, loss"),
        (saved({"model": {"epoch": 1}}), r"holds no tensors; .* keys are: model"),
        (saved([torch.zeros(2, 2)]), r"b\.pth holds a list, not a state dict"),
        (saved(torch.zeros(2, 2)), r"b\.pth holds a Tensor, not a state dict"),
        (saved({n: torch.zeros(2, 2, device="meta") for n in NAMES}), "without their values"),
        (saved({n: torch.zeros(2, 2, dtype=torch.int8) for n in NAMES}), "is int8; dequantise"),
        (saved(dict.fromkeys(NAMES, torch.zeros(0, 2))), r"has the shape .* and \[0, 2\]"),
    ],
)
def test_what_is_no_state_dict_is_refused(make, message, with_b):
    assert_refused(with_b(make), message)


@pytest.mark.parametrize("flag", ["-r", "-a"])
def test_r_and_a_are_checked_as_well(flag, step_3, tmp_path):
    args = write_triple(tmp_path, network())
    path = args[args.index(flag) + 1]
    path.write_text("hello\n")
    assert_refused(step_3(*args), rf"{path.name} is not a PyTorch checkpoint")


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_file_cut_anywhere_is_refused(options, step_3, tmp_path):
    args = write_triple(tmp_path, network(), **options)
    path = args[-1]
    whole = path.read_bytes()
    size = len(whole)
    # Around the first bytes (which tell the format), inside, around the directory at a ZIP's end.
    # A cut inside the name of a class looks like a class that is not allowed.
    for cut in {1, 2, 3, 4, 5, 30, 64, 100, *range(200, size, size // 25), size - 22, size - 1}:
        path.write_bytes(whole[:cut])
        assert_refused(step_3(*args), r"b\.pth .*(truncated|damaged|refused)")


@pytest.mark.parametrize("name", ["n" * 300 + ".pth", "./" + "n" * 300 + ".pth"])
def test_name_that_is_too_long_is_missing(name, step_3, tmp_path):
    args = write_triple(tmp_path, network())
    assert_refused(step_3(*args[:-1], name), "is missing")


def test_file_that_may_not_be_read_is_refused(with_b, monkeypatch):
    """root may read everything, so the system's answer is replaced."""

    def make(path):
        def refuse(name, *args, **options):
            if name == path:
                raise PermissionError(13, "Permission denied", str(name))
            return open(name, *args, **options)

        torch.save(network()[2], path)
        monkeypatch.setattr(formats, "open", refuse, raising=False)

    assert_refused(with_b(make), r"cannot read \S+b\.pth: Permission denied")


def test_refusal_in_a_process_of_its_own(tmp_path):
    """What torch itself warns of does not reach stderr either."""
    args = write_triple(tmp_path, network())
    args[-1].write_bytes(pickle.dumps({"a": 1}, protocol=4))
    assert_refused(run_script("cal_transferability.py", *args, cwd=tmp_path), "not a PyTorch")


# Writing


def test_what_is_written_is_plain_and_reads_back(tmp_path):
    model = nn.Conv2d(2, 4, 3).to(memory_format=torch.channels_last)
    path = tmp_path / "x.pth"
    digest = checkpoint.write(path, model.state_dict())
    found = torch.load(path, weights_only=True)
    assert type(found) is dict
    for key, value in model.state_dict().items():
        assert type(found[key]) is torch.Tensor
        assert torch.equal(found[key], value)
        assert found[key].is_contiguous()
        assert not found[key].requires_grad
    assert digest == sha256(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


@pytest.fixture(params=["small_disk", "limit"])
def full_folder(request, tmp_path):
    """A folder into which no file of 1.5 MB fits beside another."""
    folder = tmp_path / "full"
    if request.param == "limit":
        folder.mkdir()
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        (folder / "x.pth").touch()
        yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return
    with small_disk(folder, 2):
        yield folder, lambda: None


def test_full_disk_leaves_the_old_file(full_folder):
    folder, fill = full_folder
    path = folder / "x.pth"
    checkpoint.write(path, {"w": torch.ones(375_000)})
    fill()
    with pytest.raises(InputError, match=r"cannot write \S+x\.pth: .*before is untouched"):
        checkpoint.write(path, {"w": torch.zeros(375_000)})
    assert torch.equal(torch.load(path)["w"], torch.ones(375_000))
    assert [p.name for p in folder.iterdir()] == ["x.pth"]


def test_bare_name_is_written_to_ckpt_which_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CKPT_DIR", tmp_path / "ckpt")
    assert paths.output_path("x.pth") == tmp_path / "ckpt" / "x.pth"
    assert (tmp_path / "ckpt").is_dir()
    assert paths.output_path(str(tmp_path / "y.pth")) == tmp_path / "y.pth"
    with pytest.raises(InputError, match=r"the folder \S+none does not exist"):
        paths.output_path(str(tmp_path / "none" / "x.pth"))
