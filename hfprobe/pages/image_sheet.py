"""The images of a page that are shown at several places, each embedded once: as the background of a CSS class."""

from __future__ import annotations

import base64
from io import BytesIO

import PIL.Image

from hfprobe.pages.figures import data_uri

# Images with a longer side than the first are shrunk to the second; a page shows them at about this size.
KEPT_SIDE, SMALL_SIDE, QUALITY = 64, 160, 80


class ImageSheet:
    """Images by the data URI of their original.

    Attributes:
        addresses: original -> what is embedded.
        names: original -> the CSS class.
    """

    def __init__(self, *, most_bytes: int):
        self.addresses: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self._left = most_bytes

    def add(self, original: str) -> bool:
        """Embed an image if it fits into the sheet.

        Args:
            original: the data URI of the image.

        Returns:
            Whether the sheet holds the image.
        """
        if original not in self.addresses:
            small = _shrink(original)
            if len(small) > self._left:
                return False
            self._left -= len(small)
            self.names[original] = f"i{len(self.names)}"
            self.addresses[original] = small
        return True


def _shrink(original: str) -> str:
    with PIL.Image.open(BytesIO(base64.b64decode(original.partition(",")[2]))) as image:
        if max(image.size) <= KEPT_SIDE:
            return original
        small = image.convert("RGB")
    small.thumbnail((SMALL_SIDE, SMALL_SIDE))
    buffer = BytesIO()
    small.save(buffer, format="JPEG", quality=QUALITY)
    return data_uri(buffer.getvalue(), "jpeg")
