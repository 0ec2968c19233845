"""Image files of every kind become uint8 RGB, and broken ones are refused."""

import io
import os
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, TiffImagePlugin

from datasets import decode as module
from datasets.decode import decode
from datasets.images import ImageFiles, Unreadable

GRADIENT = np.stack(np.meshgrid(range(0, 240, 10), range(0, 160, 10)), -1)
RGB = Image.fromarray(np.dstack([GRADIENT, GRADIENT[..., :1]]).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pil(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(
            2, 0, 1
        )


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("1", "PNG"),
        ("RGB", "BMP"),
        ("CMYK", "TIFF"),
        ("RGBA", "WEBP"),
        ("RGB", "PPM"),
        ("L", "PPM"),
    ],
)
def test_every_mode_becomes_the_rgb_of_pil_without_warnings(mode, kind, recwarn):
    image = RGB.convert(mode)
    # A palette whose transparency is a table of bytes is what PIL warns about.
    options = {"transparency": bytes(range(256))} if mode == "P" else {}
    data = encoded(image, kind, **options)
    assert torch.equal(decode(data), pil(data))
    assert len(recwarn) == 0


def test_alpha_is_dropped_not_blended():
    image = RGB.copy()
    image.putalpha(0)
    assert torch.equal(decode(encoded(image, "PNG")), decode(encoded(RGB, "PNG")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_greyscale_of_16_bits_is_scaled_not_clipped(kind):
    levels = np.arange(256).reshape(16, 16)
    image = decode(encoded(Image.fromarray((levels * 257).astype(np.uint16)), kind))
    assert torch.equal(image, torch.from_numpy(levels).to(torch.uint8).expand(3, 16, 16))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_values_of_fewer_bits_in_files_of_16_are_scaled_by_their_own_range(bits, kind):
    ramp = np.linspace(0, 2**bits - 1, 256).round().astype(np.uint16).reshape(16, 16)
    image = decode(encoded(Image.fromarray(ramp), kind))
    expected = torch.from_numpy((ramp * (255 / (2**bits - 1)) + 0.5).astype(np.uint8))
    assert torch.equal(image, expected.expand(3, 16, 16))


def tiff(pixels, **tags):
    """A TIFF of greyscale pixels with further tags, tN = value."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in tags.items():
        info.tagtype[int(name[1:])] = 12 if isinstance(value, float) else 4
        info[int(name[1:])] = value
    return encoded(Image.fromarray(pixels), "TIFF", tiffinfo=info)


SQUARES = np.arange(256).reshape(16, 16)


@pytest.mark.parametrize(
    "data",
    [
        tiff((SQUARES / 255).astype(np.float32), t340=0.0, t341=1.0),
        tiff((SQUARES / 255).astype(np.float32), t341=1.0),
        tiff((SQUARES * 4.0 - 300).astype(np.float32), t340=-300.0, t341=720.0),
        tiff((SQUARES * 100000).astype(np.int32), t280=0, t281=25500000),
        tiff((SQUARES * 4).astype(np.uint16), t281=1020),
        b"P5 16 16 1020\n" + (SQUARES * 4).astype(">u2").tobytes(),
    ],
    ids=["float", "float from 0", "negative", "32 bits", "10 bits", "PGM"],
)
def test_range_that_the_file_states_is_the_scale(data):
    expected = torch.from_numpy(SQUARES.astype(np.uint8)).expand(3, 16, 16)
    assert (decode(data).int() - expected.int()).abs().max() <= 1


def test_dark_image_of_a_stated_range_stays_dark():
    assert decode(tiff((SQUARES * 4).astype(np.uint16), t281=65535)).max() == 4
    assert decode(b"P5 16 16 9999\n" + SQUARES.astype(">u2").tobytes()).max() == 7


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff((SQUARES / 255).astype(np.float32)), "float pixels without a stated range"),
        (tiff((SQUARES / 255).astype(np.float32), t340=1.0, t341=1.0), "float pixels without"),
        (tiff(SQUARES.astype(np.float32), t341=float("nan")), "float pixels without"),
        (tiff(SQUARES.astype(np.int32)), "32-bit or signed pixels without a stated range; convert"),
        (encoded(Image.fromarray(SQUARES.astype(np.float32)), "PPM"), "float pixels without"),
        (
            b"P6 16 16 65535\n" + np.repeat(SQUARES * 16, 3).astype(">u2").tobytes(),
            "16-bit colours that are all below 4,096",
        ),
        (b"II*\0" + bytes(90), "TIFF of a kind that cannot be read"),
    ],
    ids=["float", "empty range", "no number", "32 bits", "PFM", "12-bit colours", "strange TIFF"],
)
def test_pixels_without_a_range_are_unreadable_with_the_reason(data, reason, tmp_path):
    (tmp_path / "x.tif").write_bytes(data)
    with pytest.raises(Unreadable, match=reason):
        ImageFiles([str(tmp_path / "x.tif")], [0], image_size=8)[0]


def test_colours_of_16_bits_are_scaled():
    data = b"P6 16 16 65535\n" + np.repeat(SQUARES * 257, 3).astype(">u2").tobytes()
    assert torch.equal(decode(data)[0], torch.from_numpy(SQUARES.astype(np.uint8)))


def test_junk_in_and_behind_a_jpeg_is_read_quietly(tmp_path, capfd):
    data = encoded(RGB, "JPEG")
    paths = [tmp_path / "junk.jpg", tmp_path / "behind.jpg", tmp_path / "good.jpg"]
    paths[0].write_bytes(data[:-2] + b"\0\x11\x22" * 9 + data[-2:])
    paths[1].write_bytes(data + b"appended")
    paths[2].write_bytes(data)
    images = ImageFiles([str(path) for path in paths], [0] * 3, image_size=16).images(range(3))
    assert all(torch.equal(image, images[2]) for image in images)
    os.write(2, b"what is said afterwards is heard")
    assert capfd.readouterr().err == "what is said afterwards is heard"


def test_orientation_in_the_metadata_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    plain, turned = encoded(RGB, "JPEG"), encoded(RGB, "JPEG", exif=exif)
    assert plain != turned
    assert torch.equal(decode(plain), decode(turned))


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "WEBP"])
def test_first_of_several_frames_is_taken(kind):
    options = {"lossless": True} if kind == "WEBP" else {}
    black = Image.new("RGB", RGB.size)
    data = encoded(RGB, kind, save_all=True, append_images=[black], **options)
    assert torch.equal(decode(data), decode(encoded(RGB, "PNG")))


def test_first_bytes_choose_the_decoder(tmp_path):
    path = tmp_path / "really_a_png.JPEG"
    path.write_bytes(encoded(RGB, "PNG"))
    image, label = ImageFiles([str(path)], [3], image_size=16)[0]
    assert (image.shape, image.dtype, label) == ((3, 16, 16), torch.uint8, 3)


def test_pixels_are_the_same_without_the_decoder_of_torchvision(monkeypatch):
    data = encoded(RGB, "JPEG")
    expected = decode(data)
    monkeypatch.setattr(module, "decode_jpeg", None)
    assert torch.equal(decode(data), expected)


def test_jpeg_that_torchvision_refuses_goes_to_pil(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("unsupported")

    monkeypatch.setattr(module, "decode_jpeg", refuse)
    data = encoded(RGB.convert("CMYK"), "JPEG")
    assert torch.equal(decode(data), pil(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_more_pixels_than_the_limit_of_pil_are_refused(kind, monkeypatch):
    data = encoded(RGB, kind)
    # PIL warns above its limit, and refuses above twice that.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB.width * RGB.height // 2)
    assert decode(data).shape == (3, RGB.height, RGB.width)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", RGB.width * RGB.height // 2 - 1)
    with pytest.raises((ValueError, Image.DecompressionBombError), match="limit of 382"):
        decode(data)


def test_enormous_jpeg_is_refused_by_its_header_alone(monkeypatch):
    data = bytearray(encoded(RGB, "JPEG", progressive=True))
    struct.pack_into(">HH", data, data.index(b"\xff\xc2") + 5, 60000, 60000)

    def never(*args, **kwargs):
        pytest.fail("the image was decoded")

    monkeypatch.setattr(module, "decode_jpeg", never)
    with pytest.raises(ValueError, match="60000 x 60000 pixels"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"<html>not found</html>", "not an image of a known format"),
        (b"\xff\xd8\xff", "not an image"),
        (encoded(RGB, "JPEG")[:400], "runcated"),
        (encoded(RGB, "PNG")[:60], "runcated"),
        (encoded(RGB, "TIFF")[:100], "."),
        (None, "No such file"),
    ],
    ids=["empty", "text", "three bytes", "half a JPEG", "half a PNG", "part of a TIFF", "missing"],
)
def test_broken_files_are_unreadable_and_named(tmp_path, content, reason):
    path = tmp_path / "broken image.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Unreadable, match=reason) as caught:
        ImageFiles([str(path)], [0], image_size=8)[0]
    assert caught.value.path == str(path)
    assert "object at 0x" not in caught.value.reason
