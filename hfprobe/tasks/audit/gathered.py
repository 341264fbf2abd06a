"""The images of all parts, one after the other, as the stages of an audit number them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import PIL.Image

from hfprobe.data.pixels.reading import row_numbers
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.sources.columns import paths_below
from hfprobe.data.splits.audited import ImageKey
from hfprobe.data.splits.decoded import Splits
from hfprobe.data.splits.images import Images

SMALL, THUMBNAIL_SIDE = 64, 160  # pixels; images of at most SMALL are shown as they are


@dataclass(frozen=True)
class Gathered:
    """The images of all parts, one after the other.

    Attributes:
        parts: train, validation and test, as far as they are there.
        keys: split and row of each image in the source.
        files: path of each image, as far as it has one.
        labels, owners: (N,) class number, and number of the part, of each image.
    """

    parts: dict[str, ImageSplit]
    keys: list[tuple[str, int]]
    files: list[str | None]
    labels: np.ndarray
    owners: np.ndarray

    @classmethod
    def gather(cls, images: Images, splits: Splits) -> Gathered:
        parts = {name: splits.part(name) for name in images.parts}
        keys: list[tuple[str, int]] = []
        files: list[str | None] = []
        for name, part in parts.items():
            rows = images.parts[name]
            paths = dict(zip(row_numbers(rows).tolist(), paths_below(rows, images.arguments), strict=True))
            keys += [(images.origins[name], row) for row in part.index.tolist()]
            files += [paths[row] for row in part.index.tolist()]
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts.values()])
        return cls(parts, keys, files, np.concatenate([part.labels for part in parts.values()]), owners)

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, position: int) -> ImageKey:
        split, row = self.keys[position]
        return ImageKey(split, row, self.files[position])

    def fingerprint(self, class_names: list[str]) -> str:
        digest = hashlib.sha256("\0".join(class_names).encode())
        for part in self.parts.values():
            digest.update(part.fingerprint.encode())
        return digest.hexdigest()

    def draw(self, wanted: set[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        """Small images, as the bytes of files."""
        starts = np.cumsum([0, *(len(part) for part in self.parts.values())])
        parts = list(self.parts.values())
        found = {}
        for position, key in enumerate(self.keys):
            if key in wanted:
                owner = self.owners[position]
                image = PIL.Image.fromarray(np.array(parts[owner].images[position - starts[owner]]))
                buffer = BytesIO()
                if max(image.size) <= SMALL:
                    image.save(buffer, format="PNG")
                else:
                    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
                    image.save(buffer, format="JPEG", quality=85)
                found[key] = buffer.getvalue()
        return found
