"""From the bytes of an image file to uint8 [3, H, W].

The first bytes choose the decoder, not the extension (ImageNet has a PNG named .JPEG): JPEG goes to
torchvision, which gives PIL's pixels in a quarter of the time; everything else, and JPEG that
torchvision refuses, goes to PIL.
"""

import contextlib
import functools
import io
import math
import os
import re
import struct
import warnings
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

try:
    from torchvision.io import ImageReadMode, decode_jpeg
except ImportError:
    # Later releases of torchvision will not have it (0.29 says so); PIL decodes all, more slowly.
    decode_jpeg = None

JPEG_START = b"\xff\xd8\xff"
# (Mode, format) of PIL for greyscale of 16 bits, besides modes I;16...
MODES_OF_16 = (("I", "PNG"), ("I", "PPM"))
# TIFF: smallest and largest value, of any kind of number (340, 341) or of whole ones.
RANGE_TAGS = ((340, 280), (341, 281))
BITS_TAG = 258
# Any marker, but for zeros and restarts that stand among pixels, and for fill bytes.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
# Markers of the JPEG segment that holds the size: SOF0 ... SOF15 without DHT, JPG and DAC.
JPEG_FRAMES = {0xFF00 + code for code in range(0xC0, 0xD0)} - {0xFFC4, 0xFFC8, 0xFFCC}


def decode(data: bytes) -> Tensor:
    """Decode an image of any mode to uint8 [3, H, W] (RGB; strides of [H, W, 3]).

    Alpha is dropped, deeper greyscale scaled to 8 bits (`to_8_bits`), the first frame of several
    taken, EXIF orientation ignored. More pixels than PIL's limit of error, twice
    Image.MAX_IMAGE_PIXELS, are refused before they are decoded. Raises ValueError, OSError, or
    whatever else PIL raises on bad files. What libjpeg prints of junk in a file is for the caller
    to silence (`stderr_to`).
    """
    with warnings.catch_warnings():
        # Silence PIL's warnings about odd metadata and palettes, and torchvision's about moving its
        # decoders.
        warnings.simplefilter("ignore")
        size = jpeg_size(data) if decode_jpeg and data.startswith(JPEG_START) else None
        if size:
            check_size(*size)
            with contextlib.suppress(RuntimeError):
                encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                return decode_jpeg(encoded, mode=ImageReadMode.RGB)
        return decode_with_pil(data)


@contextlib.contextmanager
def stderr_to(file: BinaryIO | None) -> Iterator[None]:
    """Send what C libraries print on stderr to `file`, or to nowhere; libjpeg cannot be told to.

    It costs 3 us, a tenth of decoding 32 x 32 pixels, so that it is done for whole batches.
    """
    try:
        target = file.fileno() if file else nowhere()
        stderr = os.dup(2)
    except OSError:  # there is no stderr, or no file can be opened any more
        yield
        return
    try:
        os.dup2(target, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@functools.cache
def nowhere() -> int:
    """The null device, opened once."""
    return os.open(os.devnull, os.O_WRONLY)


def decode_with_pil(data: bytes) -> Tensor:
    """Decode with PIL, to uint8 [3, H, W]."""
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        # PIL's own message is only the address of the buffer.
        raise ValueError(unknown_format(data)) from error
    with image:
        check_size(image.height, image.width)
        deep = is_deep_colour(image)
        if image.mode[0] in "IF":
            image = to_8_bits(image)
        pixels = np.array(image.convert("RGB"))
    # Of colours PIL keeps the upper 8 of 16 bits, or scales the largest value to 255.
    if deep and pixels.max() <= 16:
        raise ValueError(
            "16-bit colours that are all below 4,096 (12 bits?) would be black; convert it to 8 "
            "bits"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1)


def unknown_format(data: bytes) -> str:
    """Why PIL finds no image in a file."""
    if data[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF, which this version of Pillow cannot read; install a later one"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "TIFF of a kind that cannot be read; convert it to 8 bits"
    return "not an image of a known format" if data else "empty file"


# Pixels of more than 8 bits


def to_8_bits(image: Image.Image) -> Image.Image:
    """Greyscale of 16 or 32 bits or of floats, scaled to 8 bits by the range of its values.

    That is the range that the file states; else, of 16 bits, 0 to the largest number of 8, 12 or 16
    bits, the smallest that holds all values (cameras of 12 bits write files of 16). Raises
    ValueError for other pixels: they have no range of their own.
    """
    # Before the pixels are read, when PIL forgets how they are coded.
    stated = stated_range(image)
    low, high = stated or (0, 2 ** bits_of_16(image) - 1)
    scaled = (np.asarray(image).astype(np.float64) - low) * (255 / (high - low))
    whole = np.floor(np.nan_to_num(scaled, nan=0).clip(0, 255) + 0.5)
    return Image.fromarray(whole.astype(np.uint8))


def bits_of_16(image: Image.Image) -> int:
    """How many bits the values of 16-bit greyscale are taken for: 8, 12 or 16."""
    # The mode is "I" in PGM files, and in PNG files for older versions of Pillow.
    if not (image.mode.startswith("I;16") or (image.mode, image.format) in MODES_OF_16):
        kind = "float" if image.mode == "F" else "32-bit or signed"
        raise ValueError(
            f"{kind} pixels without a stated range; convert it to 8 or 16 bits, or state it (TIFF "
            "tags SMinSampleValue and SMaxSampleValue)"
        )
    largest = int(np.asarray(image).max())
    return next((bits for bits in (8, 12) if largest < 2**bits), 16)


def stated_range(image: Image.Image) -> tuple[float, float] | None:
    """The smallest and the largest value that the pixels can have, where the file says so."""
    codec, _, _, args = image.tile[0] if image.tile else ("", None, 0, ())
    if codec.startswith("ppm") and args[1] < 65535:
        return 0, 65535  # PIL has scaled them by the header's number
    tags = getattr(image, "tag_v2", {})
    low, high = (
        next((first(tags[tag]) for tag in pair if tag in tags), None) for pair in RANGE_TAGS
    )
    bits = first(tags.get(BITS_TAG, 16))
    if high is None and image.mode.startswith("I;16") and bits < 16:
        high = 2**bits - 1
    if high is None or not math.isfinite(high - (low or 0)) or high <= (low or 0):
        return None
    return low or 0, high


def first(value: object) -> float:
    """The first number of a TIFF tag."""
    return float(value[0] if isinstance(value, tuple) else value)


def is_deep_colour(image: Image.Image) -> bool:
    """Whether these are colours of 16 bits whose file states no smaller range."""
    if image.mode[0] in "IF" or not image.tile:
        return False
    codec, _, _, args = image.tile[0]
    if codec.startswith("ppm"):
        return args[1] == 65535
    return ";16" in str(args if isinstance(args, str) else args[:1])


def check_size(height: int, width: int) -> None:
    """Raise ValueError for more pixels than PIL's limit of error."""
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    if limit and height * width > limit:
        raise ValueError(f"{width} x {height} pixels are more than the limit of {limit}")


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) from a JPEG's header; None if that is unusual.

    PIL's header reader takes as long as decoding 32 x 32 pixels; this takes a tenth.
    """
    position = 2
    while position + 9 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker in JPEG_FRAMES:
            return struct.unpack_from(">HH", data, position + 5)
        # 0xFFD0 ... 0xFFD9 have no length, and do not belong here.
        if not 0xFFC0 <= marker <= 0xFFFE or 0xFFD0 <= marker <= 0xFFD9:
            return None
        position += 2 + length
    return None


def jpeg_end(data: bytes) -> int | None:
    """The position behind the marker that ends a JPEG; None if there is none."""
    position = 2
    while found := JPEG_MARKER.search(data, position):
        marker, position = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return position
        if position + 2 <= len(data):
            position += struct.unpack_from(">H", data, position)[0]
    return None
