"""From one image file to upright 8-bit RGB pixels and a digest of the image; docs/images.md lists every format."""

from __future__ import annotations

import hashlib
import math
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from hfprobe.data.sources.file_kinds import register_heic
from hfprobe.system.errors import first_line

# Largest image in pixels unless --max_pixels says otherwise: Pillow's own limit. Decoded, it takes 0.7 GB.
MAX_PIXELS = 178_956_970
# Lossless formats: the decoded pixels identify such an image, whatever its compression. For other formats, decoders may
# differ by a grey level between versions, so the bytes of the file identify the image.
LOSSLESS = {"PNG", "BMP", "PPM", "GIF"}
DIGEST_BYTES = 16
# TIFF tags of the range of sample values: SMinSampleValue and SMaxSampleValue, or for unsigned integers
# MinSampleValue and MaxSampleValue (TIFF 6.0, sections 8 and 19).
RANGE_TAGS = ((340, 341), (280, 281))
# Bit depths that 16-bit files are known to use: bytes, cameras and scanners, the full range.
DEPTHS = (8, 12, 16)


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    Attributes:
        image: mode RGB, upright.
        digest: DIGEST_BYTES bytes that depend on the image alone, not on where it is stored.
        note: an unusual conversion of its values, as a sentence in the plural for the log; None: none.
    """

    image: PIL.Image.Image
    digest: bytes
    note: str | None = None


@contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow open images of up to `max_pixels` pixels inside, and log no warnings of its own.

    Pillow has one limit for the whole process, so it is that of the largest of all contexts that are open, in whatever
    threads. It is restored at the end. `read_image` and `check_header` apply the limit of each call.
    """
    with _limit_lock:
        warnings.filterwarnings("ignore", module=r"PIL\.")  # for good: filters are not those of one thread
        if not _limits:
            _pillow_limit[:] = [PIL.Image.MAX_IMAGE_PIXELS]
        _limits.append(max_pixels)
        _set_pillow_limit()
    try:
        yield
    finally:
        with _limit_lock:
            _limits.remove(max_pixels)
            _set_pillow_limit()


_limit_lock = threading.Lock()
_limits: list[int] = []  # of the contexts that are open
_pillow_limit: list[int | None] = []  # what it was before the first of them


def _set_pillow_limit() -> None:
    # Pillow refuses images of more than twice its limit.
    before = _pillow_limit[0]
    needed = [math.ceil(limit / 2) for limit in _limits]
    PIL.Image.MAX_IMAGE_PIXELS = None if before is None else max(before, *needed, 0)


def read_image(content: bytes, *, max_pixels: int = MAX_PIXELS) -> DecodedImage:
    """Decode the first frame of an image file, rotated by its EXIF orientation, with transparent pixels on white.

    Args:
        content: the bytes of the file.
        max_pixels: largest image in pixels. More than MAX_PIXELS need a `pixel_limit` around the call.

    Raises:
        ValueError: what `check_header` refuses, or the mode cannot be converted to RGB.
        Exception: any error that Pillow raises for a file that it cannot read; `explain` puts it into words.
    """
    with _open(content, max_pixels) as image:
        kind = image.format
        rgb, note = _upright_rgb(image)
    digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes() if kind in LOSSLESS else content).digest()
    return DecodedImage(rgb, digest[:DIGEST_BYTES], note)


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says; `format` and `mode` as Pillow names them, the size in pixels."""

    format: str
    mode: str
    width: int
    height: int


def check_header(source: bytes | str | Path, *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Raise what `read_image` raises for an image file, as far as its header shows it; no pixel is decoded.

    Args:
        source: the bytes of the file, or its path.
        max_pixels: see `read_image`.

    Raises:
        ValueError: the file is empty, has more pixels than `max_pixels`, is EPS, or its values have no stated range.
        Exception: any error that Pillow raises for a file that it cannot identify.
    """
    with _open(source, max_pixels) as image:
        if image.mode in ("I", "F") and image.format not in ("PNG", "PPM"):
            _stated_range(image.mode, getattr(image, "tag_v2", {}))
        return ImageHeader(image.format or "", image.mode, image.width, image.height)


def explain(error: Exception) -> str:
    """Why an image cannot be read, without a final period, from what `read_image` or the file system raised."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "not an image"
    return getattr(error, "strerror", None) or first_line(error)  # of a file that is missing or forbidden


def _open(source: bytes | str | Path, max_pixels: int) -> PIL.Image.Image:
    """An image whose header has been read and checked."""
    register_heic()
    if source == b"" or (not isinstance(source, bytes) and Path(source).stat().st_size == 0):
        raise ValueError("the file is empty")
    try:
        image = PIL.Image.open(BytesIO(source) if isinstance(source, bytes) else source)
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(int(re.findall(r"\d+", str(error))[0]), max_pixels) from error
    try:
        if image.width * image.height > max_pixels:
            raise _too_large(image.width * image.height, max_pixels)
        if image.format == "EPS":
            raise ValueError("it is EPS, which Pillow reads by running another program; export it as PNG")
    except ValueError:
        image.close()
        raise
    return image


def _too_large(pixels: int, max_pixels: int) -> ValueError:
    return ValueError(f"it has {pixels:,} pixels; allowed: at most {max_pixels:,} (--max_pixels sets it)")


def convert_image(image: PIL.Image.Image) -> PIL.Image.Image:
    """An image in memory as `read_image` would read it from a file: upright, mode RGB, transparent pixels on white.

    Raises:
        ValueError: values without a stated range, or a kind that cannot be converted to RGB.
    """
    return _upright_rgb(image)[0]


def _upright_rgb(image: PIL.Image.Image) -> tuple[PIL.Image.Image, str | None]:
    """An image turned as its orientation says, mode RGB, and the note of `DecodedImage`."""
    # A copy loses what only an image that was read from a file has.
    kind, tile, tags = image.format, getattr(image, "tile", None), getattr(image, "tag_v2", {})
    # Arguments of the decoder: the layout of the values, alone or as the first of several.
    arguments = tile[0][3] if tile else ""
    raw_mode = arguments if isinstance(arguments, str) else str(arguments[0])
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        values = np.asarray(image)
        depth = next(depth for depth in DEPTHS if values.max() < 2**depth)
        note = f"16-bit files with values of at most {2**depth - 1:,} were read as {depth}-bit" if depth < 16 else None
        return _from_values(values, 0, 2**depth - 1), note
    if image.mode in ("I", "F"):
        low, high = _stated_range(image.mode, tags)
        return _from_values(np.asarray(image), low, high), f"Values from {low:g} to {high:g} were scaled to 0 to 255"
    if "16" in raw_mode and np.max(image.getextrema()) < 16:
        raise ValueError(
            "it stores colours of at most 12 bits in 16-bit values, and Pillow keeps only 4 bits of them; "
            "convert it to 8 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        return PIL.Image.alpha_composite(white, image).convert("RGB"), None
    return image.convert("RGB"), None


def _stated_range(mode: str, tags: Mapping[int, Any]) -> tuple[float, float]:
    for low, high in RANGE_TAGS:
        if low in tags and high in tags:
            bounds = [np.ravel(tags[tag]).astype(float) for tag in (low, high)]
            if bounds[0].min() < bounds[1].max():
                return float(bounds[0].min()), float(bounds[1].max())
    kind = "floating-point" if mode == "F" else "32-bit integer"
    raise ValueError(
        f"it holds {kind} values and does not state their range (TIFF tags SMinSampleValue and SMaxSampleValue); "
        "convert it to 8 bits"
    )


def _from_values(values: np.ndarray, low: float, high: float) -> PIL.Image.Image:
    """A grey image from `values` (H, W): `low` becomes black, `high` becomes white."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinite values; convert it to 8 bits")
    grey = ((values - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(grey).convert("RGB")
