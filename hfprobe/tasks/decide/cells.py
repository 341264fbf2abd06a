"""The images behind the cells of the confusion matrices of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hfprobe.pages.image_sheet import ImageSheet
from hfprobe.tasks.evaluate.result import EvalResult, Thumbnail, thumbnails_of

IMAGES_PER_CELL = 8

Place = tuple[int, int]  # the true class and the predicted class


@dataclass(frozen=True)
class Cell:
    """The images of one class that a model classifies as another one.

    Attributes:
        anchor: id of its images on the page.
        count: number of images; `images`: the most confident of them.
        others: name of each other model -> how many of the images it classifies in the same way, and correctly.
    """

    anchor: str
    name: str
    true: str
    predicted: str
    count: int
    images: list[Thumbnail]
    others: dict[str, tuple[int, int]]


def collect_cells(
    results: dict[str, EvalResult], sheet: ImageSheet, places: Sequence[Place]
) -> dict[str, dict[Place, Cell]]:
    """The wrong cells with images, of each model: at most IMAGES_PER_CELL, and no more than the sheet holds.

    The most confident image of every cell comes before the second one of any, so that each cell has images as long as
    there is room; larger cells come first.

    Args:
        results: name -> evaluation, all on the same images.
        places: of the cells that are wanted.
    """
    cells: dict[str, dict[Place, Cell]] = {}
    waiting: list[tuple[Cell, EvalResult, np.ndarray]] = []
    for number, (name, result) in enumerate(results.items()):
        cells[name] = {}
        confidence = result.probabilities.max(axis=1)
        for true, predicted in places:
            found = np.flatnonzero((result.labels == true) & (result.predictions == predicted))
            if len(found):
                cells[name][true, predicted] = cell = Cell(
                    anchor=f"cell-{number}-{true}-{predicted}",
                    name=name,
                    true=result.class_names[true],
                    predicted=result.class_names[predicted],
                    count=len(found),
                    images=[],
                    others={
                        other: (
                            int((rival.predictions[found] == predicted).sum()),
                            int((rival.predictions[found] == true).sum()),
                        )
                        for other, rival in results.items()
                        if other != name
                    },
                )
                waiting.append((cell, result, found[np.argsort(-confidence[found], kind="stable")]))
    waiting.sort(key=lambda item: -item[0].count)
    _fill(waiting, sheet)
    return {name: {place: cell for place, cell in found.items() if cell.images} for name, found in cells.items()}


def _fill(waiting: list[tuple[Cell, EvalResult, np.ndarray]], sheet: ImageSheet) -> None:
    for rank in range(IMAGES_PER_CELL):
        for cell, result, order in waiting:
            if rank < len(order):
                (image,) = thumbnails_of(result, order[rank : rank + 1])
                if not sheet.add(image.image):
                    return
                cell.images.append(image)
