"""From one image file to upright 8-bit RGB pixels and a digest of the image; docs/pictures.md lists every format."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from hfprobe.data.file_kinds import register_heic

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
class Picture:
    """A decoded image.

    Attributes:
        image: mode RGB, upright.
        digest: DIGEST_BYTES bytes that depend on the image alone, not on where it is stored.
        note: an unusual conversion of its values, as a sentence in the plural for the log; None: none.
    """

    image: PIL.Image.Image
    digest: bytes
    note: str | None = None


def read_picture(content: bytes) -> Picture:
    """Decode the first frame of an image file, rotated by its EXIF orientation, with transparent pixels on white.

    Args:
        content: the bytes of the file.

    Raises:
        ValueError: the range of the values is unknown, or the mode cannot be converted to RGB.
        Exception: any error that Pillow raises for a file that it cannot read.
    """
    register_heic()
    with PIL.Image.open(BytesIO(content)) as image:
        kind = image.format
        if kind == "EPS":
            raise ValueError("it is EPS, which Pillow reads by running another program; export it as PNG")
        rgb, note = _upright_rgb(image)
    digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes() if kind in LOSSLESS else content).digest()
    return Picture(rgb, digest[:DIGEST_BYTES], note)


def convert_picture(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture in memory as `read_picture` would read it from a file: upright, mode RGB, transparent pixels on white.

    Raises:
        ValueError: values without a stated range, or a kind that cannot be converted to RGB.
    """
    return _upright_rgb(image)[0]


def _upright_rgb(image: PIL.Image.Image) -> tuple[PIL.Image.Image, str | None]:
    """A picture turned as its orientation says, mode RGB, and the note of `Picture`."""
    # A copy loses what only a picture that was read from a file has.
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
