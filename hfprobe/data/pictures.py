"""One picture file -> upright RGB pixels of 8 bits, and what identifies it; docs/pictures.md lists every kind."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import PIL.Image
import PIL.ImageOps

# Formats that store pixels exactly: such a picture is its pixels, however they are packed. Decoders of the others may
# differ by a grey level from version to version, so there the file's bytes say which picture it is.
LOSSLESS = {"PNG", "BMP", "PPM", "GIF"}
DIGEST_BYTES = 16
# TIFF tags of the range that sample values lie in: SMinSampleValue and SMaxSampleValue, or for unsigned integers
# MinSampleValue and MaxSampleValue (TIFF 6.0, sections 8 and 19).
RANGE_TAGS = ((340, 341), (280, 281))
# Bits that 16-bit files are known to hold: bytes, cameras and scanners, all of them.
DEPTHS = (8, 12, 16)


@dataclass(frozen=True)
class Picture:
    """A picture as it was read.

    Attributes:
        image: mode RGB, upright.
        digest: DIGEST_BYTES that depend on the picture alone, not on where it is stored.
        note: what was done to its values beyond the usual, as a sentence about several pictures; None: nothing.
    """

    image: PIL.Image.Image
    digest: bytes
    note: str | None = None


def read_picture(content: bytes) -> Picture:
    """The first frame of a picture file, turned as its EXIF orientation says, transparent pixels on white.

    Raises:
        ValueError: values without a stated range, or a kind that cannot be converted to RGB.
        Exception: whatever Pillow raises for a file that it cannot read.
    """
    with PIL.Image.open(BytesIO(content)) as image:
        kind = image.format
        arguments = image.tile[0][3] if image.tile else ""  # of the decoder: the layout of its values, alone or first
        raw_mode = arguments if isinstance(arguments, str) else str(arguments[0])
        PIL.ImageOps.exif_transpose(image, in_place=True)
        rgb, note = _to_rgb(image, raw_mode=raw_mode)
    digest = hashlib.sha256(f"{rgb.size}".encode() + rgb.tobytes() if kind in LOSSLESS else content).digest()
    return Picture(rgb, digest[:DIGEST_BYTES], note)


def _to_rgb(image: PIL.Image.Image, *, raw_mode: str) -> tuple[PIL.Image.Image, str | None]:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image)
        depth = next(depth for depth in DEPTHS if values.max() < 2**depth)
        note = f"16-bit files with values of at most {2**depth - 1:,} were read as {depth}-bit" if depth < 16 else None
        return _from_values(values, 0, 2**depth - 1), note
    if image.mode in ("I", "F"):
        low, high = _stated_range(image)
        return _from_values(np.asarray(image), low, high), f"Values from {low:g} to {high:g} were scaled to 0 to 255"
    if "16" in raw_mode and max(high for _, high in _extrema(image)) < 16:
        raise ValueError(
            "it holds colours of at most 12 bits in 16-bit values, of which Pillow keeps 4 bits; convert it to 8 bits"
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, "white")
        return PIL.Image.alpha_composite(white, image).convert("RGB"), None
    return image.convert("RGB"), None


def _extrema(image: PIL.Image.Image) -> list[tuple[int, int]]:
    found = image.getextrema()
    return [found] if image.getbands() == (image.mode,) else list(found)


def _stated_range(image: PIL.Image.Image) -> tuple[float, float]:
    tags = getattr(image, "tag_v2", {})
    for low, high in RANGE_TAGS:
        if low in tags and high in tags:
            bounds = [np.ravel(tags[tag]).astype(float) for tag in (low, high)]
            if bounds[0].min() < bounds[1].max():
                return float(bounds[0].min()), float(bounds[1].max())
    kind = "floating-point" if image.mode == "F" else "32-bit integer"
    raise ValueError(
        f"it holds {kind} values and does not state their range (TIFF tags SMinSampleValue and SMaxSampleValue); "
        "convert it to 8 bits"
    )


def _from_values(values: np.ndarray, low: float, high: float) -> PIL.Image.Image:
    """Grey pixels: `low` becomes black, `high` white."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not numbers; convert it to 8 bits")
    grey = ((values - low) * (255 / (high - low))).round().clip(0, 255).astype(np.uint8)
    return PIL.Image.fromarray(grey).convert("RGB")
