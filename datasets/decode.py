"""From the bytes of an image file to uint8 [3, H, W].

The first bytes choose the decoder, not the extension (ImageNet has a PNG named .JPEG): JPEG goes to
torchvision, which gives PIL's pixels in a quarter of the time; everything else, and JPEG that
torchvision refuses, goes to PIL.
"""

import contextlib
import io
import struct
import warnings

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
# Markers of the JPEG segment that holds the size: SOF0 ... SOF15 without DHT, JPG and DAC.
JPEG_FRAMES = {0xFF00 + code for code in range(0xC0, 0xD0)} - {0xFFC4, 0xFFC8, 0xFFCC}


def decode(data: bytes) -> Tensor:
    """Decode an image of any mode to uint8 [3, H, W] (RGB; strides of [H, W, 3]).

    Alpha is dropped, 16-bit greyscale scaled to 8 bits, the first frame of several taken, EXIF
    orientation ignored. More pixels than PIL's bomb limit (Image.MAX_IMAGE_PIXELS) are refused
    before they are decoded. Raises ValueError, OSError, or whatever else PIL raises on bad files.
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


def decode_with_pil(data: bytes) -> Tensor:
    """Decode with PIL, to uint8 [3, H, W]."""
    try:
        image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        # PIL's own message is only the address of the buffer.
        raise ValueError("not an image of a known format" if data else "empty file") from error
    with image:
        check_size(image.height, image.width)
        if image.mode.startswith("I"):
            # 16-bit greyscale, whose values above 255 convert("RGB") would clip. Its mode is "I" in
            # PGM files, and in PNG files for older versions of Pillow.
            grey = np.asarray(image).astype(np.int64).clip(0, 65535)
            image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def check_size(height: int, width: int) -> None:
    """Raise ValueError for more pixels than PIL's bomb limit."""
    limit = Image.MAX_IMAGE_PIXELS
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
