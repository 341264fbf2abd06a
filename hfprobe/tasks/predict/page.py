"""A page that shows images with their predictions, grouped by answer."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from hfprobe.data.pixels.image_files import MAX_PIXELS, pixel_limit, read_image
from hfprobe.pages.environment import make_environment
from hfprobe.system.files import write_beside
from hfprobe.system.machine import count_cores
from hfprobe.system.progress import show_progress
from hfprobe.tasks.predict.result import Predictions

# Thumbnails on a page of a few megabytes, and their longest side in pixels.
MOST_THUMBNAILS, THUMBNAIL_SIDE = 300, 200
MOST_UNREADABLE = 100


@dataclass(frozen=True)
class Group:
    """The images with one answer.

    Attributes:
        label: the predicted class; None for those that are not sure.
        positions: in the predictions, the least probable first.
    """

    label: str | None
    positions: np.ndarray


def write_contact_sheet(
    path: Path,
    predictions: Predictions,
    *,
    model: str,
    top: int,
    temperature: bool,
    max_pixels: int = MAX_PIXELS,
) -> None:
    """Write a page that needs no other file, atomically.

    With more than MOST_THUMBNAILS images, every answer shows an equal number of them, the least probable first.

    Args:
        predictions: of files; `names` are their paths.
        model: name of the model, for the heading.
        top: so many of the most probable classes are named under each image.
        temperature: whether the probabilities are calibrated.
        max_pixels: largest image in pixels, as for the predictions.

    Raises:
        OSError: the page cannot be written; an earlier one is intact.
    """
    groups = group_by_answer(predictions)
    shown = choose_shown(groups)
    ranked = predictions.top(top)
    with (
        ThreadPoolExecutor(count_cores()) as threads,
        show_progress(total=sum(map(len, shown)), desc="Drawing thumbnails", unit="image") as progress,
        pixel_limit(max_pixels),
    ):
        draw = partial(draw_thumbnail, max_pixels=max_pixels)
        sections = []
        for group, positions in zip(groups, shown, strict=True):
            images = []
            names = [predictions.names[position] for position in positions]
            for name, position, thumbnail in zip(names, positions, threads.map(draw, names), strict=True):
                images.append({"path": name, "name": Path(name).name, "top": ranked[position], **thumbnail})
                progress.update()
            shares = predictions.confidences[group.positions]
            sections.append({"label": group.label, "count": len(shares), "mean": shares.mean(), "images": images})
    page = (
        make_environment(__file__, markdown=False)
        .get_template("contact_sheet.html.j2")
        .render(
            model=model,
            total=len(predictions),
            shown=sum(map(len, shown)),
            sections=sections,
            threshold=predictions.threshold,
            accuracy=predictions.accuracy,
            temperature=temperature,
            class_names=predictions.class_names,
            unreadable=list(predictions.unreadable.items())[:MOST_UNREADABLE],
            unreadable_total=len(predictions.unreadable),
        )
    )
    write_beside(path, lambda beside: beside.write_text(page, encoding="utf-8"))


def group_by_answer(predictions: Predictions) -> list[Group]:
    """One group per class that was predicted, the largest first, after the images that are not sure."""
    sure, numbers = predictions.sure, predictions.probabilities.argmax(axis=1)
    order = np.argsort(predictions.confidences, kind="stable")
    unsure = [Group(None, order[~sure[order]])]
    classes = [
        Group(name, order[sure[order] & (numbers[order] == number)])
        for number, name in enumerate(predictions.class_names)
    ]
    classes.sort(key=lambda group: -len(group.positions))
    return [group for group in unsure + classes if len(group.positions)]


def choose_shown(groups: Sequence[Group]) -> list[np.ndarray]:
    """The positions to show of each group: MOST_THUMBNAILS in all, with equal parts for groups that have as many."""
    ranks = np.concatenate([np.arange(len(group.positions)) for group in groups] or [np.arange(0)])
    owners = np.repeat(np.arange(len(groups)), [len(group.positions) for group in groups])
    chosen = owners[np.argsort(ranks, kind="stable")[:MOST_THUMBNAILS]]
    counts = np.bincount(chosen, minlength=len(groups))
    return [group.positions[:count] for group, count in zip(groups, counts, strict=True)]


def draw_thumbnail(path: str, *, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """An image as the data URI of a small JPEG, with its size; `image` is None where it cannot be read any more."""
    try:
        image = read_image(Path(path).read_bytes(), max_pixels=max_pixels).image
    except Exception:  # the file was changed since it was classified, or was a pipe
        return {"image": None, "width": 0, "height": 0}
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    uri = f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"image": uri, "width": image.width, "height": image.height}
