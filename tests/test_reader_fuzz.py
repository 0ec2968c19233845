"""Damaged, odd and hostile checkpoint files: one line and exit code 2, or a full result.

Step 3 runs in a process of its own that takes one command after another, so that a crash of the
interpreter (mapped memory can do that) or a hang is found like any other fault.
"""

import csv
import io
import json
import math
import os
import pickle
import pickletools
import re
import select
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from checkpoints import ROOT, constant_triple, write_triple
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight", "fc.weight"]
LEGACY = {"_use_new_zipfile_serialization": False}
SECONDS = 60  # far more than any file here takes
# For a property that runs step 3 once per example.
fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

WORKER = """
import contextlib, io, json, sys, traceback, warnings
import cal_transferability, console
warnings.simplefilter("ignore")
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = console.run(lambda: cal_transferability.main(json.loads(line)))
        except BaseException:
            code = traceback.format_exc()
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Worker:
    """Step 3 in another process, on B files that the test makes beside good r and A."""

    def __init__(self, folder):
        self.folder = folder
        r, a, self.b = constant_triple(NAMES)
        self.b["fc.weight"] = torch.zeros(5, 2)
        self.args = write_triple(folder, (r, a, self.b))
        self.path = self.args[-1]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def run(self, content):
        """Step 3 with `content` as the file of theta_FB: exit code, stdout and stderr."""
        self.path.write_bytes(content)
        outputs = [self.folder / "t.json", self.folder / "t.csv"]
        for path in outputs:
            path.unlink(missing_ok=True)
        if self.process is None:
            self.start()
        argv = [*self.args, "--no_plot", "--json", outputs[0], "--csv", outputs[1]]
        self.process.stdin.write(json.dumps([str(arg) for arg in argv]) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        answer = self.process.stdout.readline() if ready else ""
        if not answer:
            code = self.process.poll() if ready else "still running"
            self.stop()
            pytest.fail(f"step 3 crashed or hung: {code}")
        return json.loads(answer)

    def check(self, content):
        """Run and check what must hold whatever is in the file; return the exit code."""
        code, out, err = self.run(content)
        written = sorted(path.name for path in self.folder.iterdir() if path.suffix != ".pth")
        *warned, last = err.splitlines(keepends=True) or [""]
        assert code in (0, 2), code
        if code == 2:
            assert re.fullmatch(r"error: [^\x00-\x1f\x7f]+\n", last), err
            assert (out, written) == ("", [])
        else:
            warned.append(last)
            assert out.startswith("Layer-wise transferability:  [")
            assert written == ["t.csv", "t.json"]
            (result,) = json.loads((self.folder / "t.json").read_text())["results"]
            rows = list(csv.DictReader((self.folder / "t.csv").open(newline="")))
            assert len(rows) == len(result["layers"]) > 0
            assert math.isfinite(result["transferability"])
        assert all(re.fullmatch(r"(warning: [^\x00-\x1f\x7f]+\n)?", line) for line in warned), err
        return code

    def assert_refused(self, content):
        assert self.check(content) == 2

    def assert_as_undamaged_or_refused(self, content):
        if self.check(content) == 0:
            (result,) = json.loads((self.folder / "t.json").read_text())["results"]
            assert [x["transferability"] for x in result["layers"]] == [1.5, 1.5, 1.0]


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    worker = Worker(tmp_path_factory.mktemp("fuzz"))
    yield worker
    worker.stop()


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def good_b(value=3.0):
    """A state dict of B: with the r and A of the worker T is 1.5."""
    return {
        **{name: torch.full((2, 2), value) for name in NAMES[:-1]},
        "fc.weight": torch.zeros(5, 2),
        "steps": torch.tensor(7),
    }


ZIP, OLD = saved(good_b()), saved(good_b(), **LEGACY)
# The numbers in these files: of the three weights, of the head, of the counter.
THREES = torch.full((2, 2), 3.0).numpy().tobytes()


def in_tensors(content):
    """Offsets of the numbers themselves."""
    found = set()
    for numbers in (THREES, bytes(40), struct.pack("<q", 7)):
        at = content.find(numbers)
        while at >= 0:
            found |= set(range(at, at + len(numbers)))
            at = content.find(numbers, at + len(numbers))
    return found


def rezipped(change=lambda name, content: content, method=zipfile.ZIP_STORED):
    """The zip-format file written again by zipfile, with right checksums."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(ZIP)) as source,
        zipfile.ZipFile(buffer, "w", method) as target,
    ):
        for member in source.infolist():
            target.writestr(member.filename, change(member.filename, source.read(member)))
    return buffer.getvalue()


def test_files_are_good_before_they_are_damaged(worker):
    for content in (ZIP, OLD, rezipped()):
        assert worker.check(content) == 0
        worker.assert_as_undamaged_or_refused(content)


# Bytes


STARTS = [
    *(b"", b"PK\3\4", b"PK\5\6", b"\x80\x02", b"\x80\x02}q\x00(", b"\x80\x04\x95", b"\x89HDF\r\n"),
    *(OLD[:15], OLD[:40], OLD[:200], ZIP[:30], ZIP[:300], b"version https://git-lfs", b"<html>"),
]


@fuzz
@given(start=st.sampled_from(STARTS), rest=st.binary(max_size=200))
def test_random_bytes(worker, start, rest):
    worker.assert_refused(start + rest)


@fuzz
@given(data=st.data())
def test_random_opcodes_of_a_pickle(worker, data):
    """Alone, and as the description of a zip-format file."""
    opcodes = [op.code.encode("latin-1") for op in pickletools.opcodes]
    pieces = st.one_of(st.sampled_from(opcodes), st.binary(max_size=4))
    text = b"\x80\x02" + b"".join(data.draw(st.lists(pieces, max_size=30)))
    worker.assert_refused(text + b".")
    content = rezipped(lambda name, old: text + b"." if name.endswith("data.pkl") else old)
    worker.assert_refused(content)


@pytest.mark.slow  # its short sibling: test_file_cut_anywhere_is_refused
@pytest.mark.parametrize("content", [ZIP, OLD], ids=["zip", "legacy"])
def test_file_cut_off(content, worker):
    """Wherever a record or a field can end."""
    marks = [m.start() for m in re.finditer(rb"PK|conv|torch|\x80\x02|q.|\.", content, re.DOTALL)]
    cuts = {*marks, *range(0, len(content), 37), *range(len(content) - 60, len(content))}
    for cut in sorted(cuts):
        assert worker.check(content[:cut]) == 2, cut


# Where every byte is either checked or of no matter.
AROUND = sorted(set(range(len(ZIP))) - in_tensors(ZIP))


@fuzz
@given(flips=st.dictionaries(st.sampled_from(AROUND), st.integers(1, 255), min_size=1, max_size=3))
def test_bytes_flipped_around_the_tensors_of_a_zip(worker, flips):
    content = bytearray(ZIP)
    for at, bits in flips.items():
        content[at] ^= bits
    worker.assert_as_undamaged_or_refused(bytes(content))


@pytest.mark.parametrize("name", ["data/0", "data/1", "data/2"])
@pytest.mark.parametrize("change", [1, -1, 4, -4, 16, 0x8000 - 70])
@pytest.mark.parametrize("field", [26, 28])
def test_lengths_that_shift_a_tensor_are_noticed(field, change, name, worker):
    """torch takes the start of a tensor from these two lengths, and would read what lies there."""
    with zipfile.ZipFile(io.BytesIO(ZIP)) as archive:
        (member,) = [x for x in archive.infolist() if x.filename.endswith(name)]
    at = member.header_offset + field
    length = int.from_bytes(ZIP[at : at + 2], "little") + change
    if length >= 0:
        content = ZIP[:at] + length.to_bytes(2, "little") + ZIP[at + 2 :]
        worker.assert_refused(content)


def test_start_of_a_tensor_is_not_that_of_the_next(worker):
    """Where all weights are of one size, that of the next looks right."""
    with zipfile.ZipFile(io.BytesIO(ZIP)) as archive:
        (at,) = [x.header_offset + 28 for x in archive.infolist() if x.filename[-6:] == "data/0"]
    first = ZIP.index(THREES)
    apart = ZIP.index(THREES, first + 16) - first
    length = int.from_bytes(ZIP[at : at + 2], "little") + apart
    worker.assert_refused(ZIP[:at] + length.to_bytes(2, "little") + ZIP[at + 2 :])


NUMBERS = [0, 1, 2, 63, 64, len(ZIP) - 1, len(ZIP), len(ZIP) + 1, 2**31 - 1, 2**31, 2**32 - 1]


@fuzz
@given(data=st.data())
def test_sizes_and_offsets_of_a_zip_that_cannot_be(worker, data):
    """Fields of the directory at the end, which say where everything lies and how long it is."""
    start = ZIP.index(b"PK\1\2")
    at = data.draw(st.integers(start, len(ZIP) - 4))
    number = data.draw(st.sampled_from(NUMBERS))
    worker.assert_as_undamaged_or_refused(ZIP[:at] + struct.pack("<L", number) + ZIP[at + 4 :])


@fuzz
@given(data=st.data())
def test_bytes_flipped_anywhere(worker, data):
    """Numbers carry no checksum, and a legacy file has none at all."""
    content = bytearray(data.draw(st.sampled_from([ZIP, OLD])))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    worker.check(bytes(content))


@fuzz
@given(data=st.data())
def test_pieces_lost_doubled_or_exchanged(worker, data):
    content = data.draw(st.sampled_from([ZIP, OLD]))
    i, j, k = sorted(data.draw(st.lists(st.integers(0, len(content)), min_size=3, max_size=3)))
    a, b, c, d = content[:i], content[i:j], content[j:k], content[k:]
    worker.check(data.draw(st.sampled_from([a + c + d, a + b + b + c + d, a + c + b + d])))


# Zip-format files that other programs write


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packed_again_with_compression(method, worker):
    """Mapped, the deflated bytes would be taken for numbers; torch can inflate them."""
    code = worker.check(rezipped(method=method))
    assert code == (0 if method == zipfile.ZIP_DEFLATED else 2)
    worker.assert_as_undamaged_or_refused(rezipped(method=method))


def test_file_saved_without_checksums_is_read(worker):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        content = saved(good_b())
    finally:
        torch.serialization.set_crc32_options(before)
    assert content != ZIP
    assert worker.check(content) == 0


@pytest.mark.parametrize(
    "size", [b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x7f", b"K\xff"]
)
def test_storage_that_is_said_to_be_larger_than_it_is(size, worker):
    def change(name, content):
        return content.replace(b"K\x04t", size + b"t") if name.endswith("data.pkl") else content

    assert rezipped(change) != rezipped()
    worker.check(rezipped(change))
    old = OLD.replace(b"K\x04", size)
    assert old != OLD
    worker.check(old)


@pytest.mark.parametrize("count", [2**20, 2**40, 2**62, -1])
def test_size_before_a_storage_of_a_legacy_file(count, worker):
    at = OLD.index(struct.pack("<q", 4) + THREES)
    worker.assert_refused(OLD[:at] + struct.pack("<q", count) + OLD[at + 8 :])


@pytest.mark.parametrize("suffix", ["data.pkl", "data/0", "byteorder", "version"])
@pytest.mark.parametrize("content", [b"", b"big", b"\xff" * 7, b"0" * 5000])
def test_member_with_other_content(content, suffix, worker):
    worker.check(rezipped(lambda name, old: content if name.endswith(suffix) else old))


# What may lie beside the weights, or in their place


BASE = torch.full((2, 2), 3.0)
KINDS = {
    "half": BASE.half,
    "bfloat16": BASE.bfloat16,
    "double": BASE.double,
    "complex": lambda: BASE.to(torch.complex64),
    "int8": lambda: BASE.to(torch.int8),
    "bool": BASE.bool,
    "float8": lambda: BASE.to(torch.float8_e4m3fn),
    "float4": lambda: torch.zeros(2, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    "quantised": lambda: torch.quantize_per_tensor(BASE, 0.1, 0, torch.qint8),
    "sparse": BASE.to_sparse,
    "sparse_rows": BASE.to_sparse_csr,
    "nested": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "meta": lambda: BASE.to("meta"),
    "parameter": lambda: torch.nn.Parameter(BASE),
    "number": lambda: torch.tensor(3.0),
    "vector": lambda: torch.ones(2),
    "empty": lambda: torch.ones(0, 2),
    "four_dimensions": lambda: torch.ones(1, 1, 1, 1),
    "expanded": lambda: torch.tensor(3.0).expand(2, 2),
    "huge": lambda: torch.tensor(3.0).expand(2**20, 2**30),
    "nan": lambda: BASE * math.nan,
    "infinite": lambda: BASE * math.inf,
    "large": lambda: BASE.double() * 1e300,
}


def leaves():
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
        st.sampled_from(list(KINDS)).map(lambda kind: KINDS[kind]()),
        st.just(OrderedDict(good_b())),
    )


KEYS = st.one_of(
    st.sampled_from(
        [
            *(*NAMES, "state_dict", "model", "net", "ema", "model_ema", "module"),
            *(
                "module.conv1.weight",
                "conv_proj.weight",
                "heads.weight",
                "fc.weight",
                "fc.0.weight",
            ),
            *("layer1.1.conv1.weight", "layer" + "9" * 5000 + ".0.conv1.weight", "\udcff.weight"),
            *("blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "aux1.fc2.weight", "a\nb"),
        ]
    ),
    st.text(max_size=5),
    st.none(),
    st.integers(-3, 3),
    st.booleans(),
    st.tuples(st.integers(0, 1), st.text(max_size=2)),
    st.binary(max_size=2),
)
OBJECTS = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(KEYS, inner, max_size=4),
    ),
    max_leaves=8,
)


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(
    odd=OBJECTS,
    beside=st.dictionaries(KEYS, OBJECTS, max_size=3),
    options=st.sampled_from([{}, LEGACY]),
)
def test_odd_values(worker, odd, beside, options):
    for content in (odd, {**good_b(), **beside}):
        try:
            written = saved(content, **options)
        except Exception:  # what torch cannot save, such as a nested tensor in the old format
            continue
        worker.check(written)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["conv1.weight", "fc.weight"])
@pytest.mark.parametrize("kind", KINDS)
def test_tensor_of_another_kind_in_the_place_of_a_weight(kind, name, worker):
    worker.check(saved({**good_b(), name: KINDS[kind]()}))


def test_container_in_itself(worker):
    content = {"model": {}}
    content["model"]["model"] = content["model"]
    worker.assert_refused(saved(content))
    assert worker.check(saved({**good_b(), "self": content})) == 0


# Code


class Call:
    """Calls `function` when it is unpickled."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def call_by_name(module, name, *args):
    """The same written by hand, with any name for the function."""
    made = b"".join(b"X" + struct.pack("<L", len(x)) + x.encode() for x in args)
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + made + b"tR."


FUNCTIONS = [
    ("os", "mkdir"),
    ("posix", "mkdir"),
    ("os", "makedirs"),
    ("pathlib", "Path.mkdir"),
    ("pathlib", "os.mkdir"),
    ("argparse", "_os.mkdir"),
    ("numpy", "os.mkdir"),
    ("torch", "os.mkdir"),
    ("torch.serialization", "os.mkdir"),
    ("torch._utils", "os.mkdir"),
    ("models.checkpoint", "os.mkdir"),
    ("numpy.core.multiarray", "os.mkdir"),
]


@pytest.mark.parametrize(("module", "name"), FUNCTIONS)
def test_function_is_never_called(module, name, worker, tmp_path):
    marker = tmp_path / "was_run"
    text = call_by_name(module, name, str(marker))
    contents = [text, rezipped(lambda n, old: text if n.endswith("data.pkl") else old)]
    # In the place of the legacy format's last pickle, after those that introduce it.
    contents.append(OLD[: OLD.index(b"\x80\x02}q\x00(X\x0c")] + text)
    for content in contents:
        worker.assert_refused(content)
    assert not marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_code_in_a_pickle_of_any_protocol_is_never_run(protocol, worker, tmp_path):
    marker = tmp_path / "was_run"
    for options in ({}, LEGACY):
        content = {**good_b(), "x": Call(os.mkdir, str(marker))}
        worker.assert_refused(saved(content, pickle_protocol=protocol, **options))
    assert not marker.exists()


@pytest.mark.parametrize("protocol", [0, 1, 4, 5])
@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_protocol_that_torch_cannot_read_safely_is_said(protocol, options, worker):
    content = saved(good_b(), pickle_protocol=protocol, **options)
    worker.assert_refused(content)
    message = "saved with a pickle protocol that torch's safe reader does not know"
    assert message in worker.run(content)[2]
