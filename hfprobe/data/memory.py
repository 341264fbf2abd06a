"""Images that a Python program holds: what counts as one image, and a Dataset, a DataFrame or arrays as a source."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from io import BytesIO, TextIOBase
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import PIL.Image
import torch
from datasets import Dataset, DatasetDict, Features, Image, Value

from hfprobe.data.arguments import IN_MEMORY, DataArguments
from hfprobe.data.pixels.image_files import convert_image, explain, pixel_limit
from hfprobe.data.sources.columns import find_column, no_column, standard_splits
from hfprobe.data.sources.folder_tables import OWN_OUTPUT
from hfprobe.data.sources.named_images import check_repeats, make_splits, read_rows
from hfprobe.data.sources.source import Source
from hfprobe.data.sources.tables import Table, is_own_output
from hfprobe.system.errors import InputError, shorten

IMAGE_KINDS = (
    "paths, bytes of image files, open files, dicts with 'bytes' or 'path', PIL images, uint8 arrays of shape "
    "(H, W, 3) or (H, W), uint8 tensors of shape (3, H, W), (1, H, W), (H, W, 3) or (H, W)"
)
SOURCES = (
    "a hub id, a folder or a file; a datasets.Dataset or DatasetDict; a pandas DataFrame with a column of images or "
    "paths and one of labels; or a tuple (images, labels), with images as a uint8 array of shape (N, H, W, 3) or "
    "(N, H, W) or a list, and N labels"
)
BY_PEOPLE = "Pass one whose labels were assigned by people."
CHUNK_BYTES = 2**28  # of images in one Arrow array, which holds less than 2**31
NAMED_AS = {int: "int64", str: "string", bool: "bool"}


def image_source(item: Any) -> bytes | Path | PIL.Image.Image:
    """Where the pixels of one image are: the bytes of a file, a path, or a PIL image.

    Args:
        item: one of IMAGE_KINDS.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(item, Mapping) and item.keys() <= {"bytes", "path"}:  # as datasets has it undecoded
        item = item.get("path") if item.get("bytes") is None else item["bytes"]
    if isinstance(item, PIL.Image.Image):
        return item
    if isinstance(item, TextIOBase):
        raise ValueError("it is a file that was opened as text; open it with mode 'rb'")
    if hasattr(item, "read"):
        if getattr(item, "seekable", bool)():
            item.seek(0)
        item = item.read()
    if isinstance(item, bytes | bytearray | memoryview):
        return bytes(item)
    if isinstance(item, str | os.PathLike):
        if not os.fspath(item):
            raise ValueError("its path is empty")
        return Path(item)
    return PIL.Image.fromarray(_pixels(item))


def describe(item: Any) -> str:
    """An object in words, for a message: its type, and of an array its shape, the type and the range of its values.

    The values of uint8 have one range only, which is left out.
    """
    if not isinstance(item, np.ndarray | torch.Tensor):
        return f"an object of type {type(item).__name__}"
    kind = "a tensor" if isinstance(item, torch.Tensor) else "an array"
    text = f"{kind} of shape {tuple(item.shape)} with {str(item.dtype).removeprefix('torch.')} values"
    if item.dtype in (np.uint8, torch.uint8):
        return text
    values = item.detach().float().cpu().numpy() if isinstance(item, torch.Tensor) else item
    if not values.size or values.dtype.kind not in "iuf":
        return text
    return f"{text} from {values.min():g} to {values.max():g}"


def _pixels(item: Any) -> np.ndarray:
    """The uint8 pixels (H, W, 3) or (H, W) of an array or a tensor.

    Raises:
        ValueError: it has other values or another shape, or is no array.
    """
    if hasattr(item, "__array__") and not isinstance(item, np.ndarray | torch.Tensor):
        array = np.asarray(item)  # of another library
        item = item if array.dtype == object else array
    is_tensor, remedy = isinstance(item, torch.Tensor), ""
    if is_tensor or isinstance(item, np.ndarray):
        shape, kind = tuple(item.shape), str(item.dtype).removeprefix("torch.")
        channels_first = len(shape) == 3 and shape[0] in (1, 3)
        channels_last = len(shape) == 3 and shape[2] == 3
        if kind == "uint8" and math.prod(shape):
            pixels = item.detach().cpu().numpy() if is_tensor else item
            if len(shape) == 2 or (channels_last and not (is_tensor and channels_first)):
                return pixels
            if is_tensor and channels_first and not channels_last:
                return pixels[0] if shape[0] == 1 else pixels.transpose(1, 2, 0)
            if channels_first:
                unclear = "Its shape does not say which axis has the channels: pass an array of shape (H, W, 3)"
                remedy = f". {unclear if is_tensor else 'Move the channels to the end: array.transpose(1, 2, 0)'}"
        elif kind.lstrip("b").startswith("float"):
            remedy = ". If its values are from 0 to 1, multiply by 255, round, and convert to uint8"
    raise ValueError(f"it is {describe(item)}. Allowed: {IMAGE_KINDS}{remedy}")


def read_memory(images: Any, data: DataArguments) -> tuple[Source, DataArguments]:
    """Images that a program passes, as a source, and the settings with a name for them.

    Paths are relative to the working directory. Pixels are copied. A format or a transform that was set on a Dataset is
    not applied.

    Args:
        images: a Dataset or a DatasetDict, as `save_to_disk` takes it; a DataFrame, read like a CSV file, whose images
            may be what `image_source` takes; or a tuple of images and labels.
        data: the columns and the names of the splits.

    Returns:
        The source; and `data` with a value of `dataset` that depends on the content, for records and names.

    Raises:
        InputError: it is something else; a column is missing; an image or a label cannot be used.
    """
    columns = ("image_column", "label_column", "group_column") if isinstance(images, tuple) else ()
    for name in ("dataset_config", *columns):
        if getattr(data, name) is not None:
            raise InputError(f"{name} has no effect for {_kind(images)} in memory. Leave it out.")
    unused: dict[str, list[str]] = {}
    if isinstance(images, Dataset | DatasetDict):
        found = {"train": images} if isinstance(images, Dataset) else {str(name): images[name] for name in images}
        if any(is_own_output(rows.column_names) for rows in found.values()):
            raise InputError(f"The {type(images).__name__} is a {OWN_OUTPUT}. {BY_PEOPLE}")
        splits = {name: _with_files(rows.with_format(None), data) for name, rows in found.items()}
    elif isinstance(images, pd.DataFrame):
        splits, unused = _read_frame(images, data)
        splits = {name or "train": rows for name, rows in splits.items()}
    elif isinstance(images, tuple) and len(images) == 2:
        splits = {"train": _read_pair(*images)}
    else:
        several = isinstance(images, tuple | list)
        what = f"a {type(images).__name__} of {len(images)}" if several else describe(images)
        raise InputError(f"dataset is {what}; allowed: {SOURCES}.")
    for name, rows in splits.items():
        if not len(rows):
            raise InputError(f"Split '{shorten(name)}' of the images in memory is empty. Add images to it.")
    # The fingerprint of a Dataset is a hash of its content, or of its files and of what was done to them.
    content = repr([(name, rows._fingerprint) for name, rows in splits.items()])
    digest = hashlib.sha256(content.encode()).hexdigest()
    found, left_out = standard_splits(splits, data=data)
    left_out |= unused
    source = Source(found, f"{_kind(images)} in memory ({digest[:8]})", left_out, content=digest)
    return source, replace(data, dataset=f"{IN_MEMORY}{digest[:8]}")


def _kind(images: Any) -> str:
    return "images and labels" if isinstance(images, tuple) else f"a {type(images).__name__}"


def _with_files(rows: Dataset, data: DataArguments) -> Dataset:
    """The rows, with a column of paths as a column of images."""
    column = find_column(rows.column_names, "image", data)
    if column is not None and getattr(rows.features[column], "dtype", None) in ("string", "large_string"):
        return rows.cast_column(column, Image())
    return rows


def _read_frame(table: pd.DataFrame, data: DataArguments) -> tuple[dict[str, Dataset], dict[str, list[str]]]:
    """The images of a DataFrame, by split; and reason -> what is left out."""
    if not len(table):
        raise InputError("The DataFrame has no rows. Add one row per image.")
    columns = [str(name) for name in table.columns]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(f"The DataFrame has two columns '{shorten(twice[0])}'. Rename one of them.")
    if is_own_output(columns):
        raise InputError(f"The DataFrame is a {OWN_OUTPUT}. {BY_PEOPLE}")
    table = table.set_axis(columns, axis=1)
    image, label = (find_column(columns, kind, data) for kind in ("image", "label"))
    if image is None or label is None:
        raise no_column("image" if image is None else "label", columns, data)
    items = list(table[image])
    are_paths = all(isinstance(item, str | os.PathLike) for item in items)
    cells = {
        column: ["" if _is_missing(value) else str(value).strip() for value in table[column]]
        for column in columns
        if column != image or are_paths
    }
    if are_paths:  # as in a CSV file
        rows = read_rows(Table(Path("DataFrame"), cells, list(range(1, len(table) + 1))), data, folder=Path("."))
        check_repeats(rows, data)
        return make_splits(rows, data, folder=Path("."))
    rows = _make_rows(items, image)
    for column in columns:
        if column != image:  # `standard_splits` refuses one column for both, and divides the rows by a column of splits
            values = _read_labels(table[column]) if column == label else cells[column]
            rows = rows.add_column(column, values, feature=_feature(values))
    return {"train": rows}, {}


def _read_pair(images: Any, labels: Any) -> Dataset:
    for name, values, dimensions in (("images", images, (1, 3, 4)), ("labels", labels, (1, 2))):
        countable = isinstance(values, Iterable) and not isinstance(values, str | bytes | Mapping | pd.DataFrame)
        if not countable or getattr(values, "ndim", 1) not in dimensions:
            raise InputError(f"The {name} are {describe(values)}; allowed: {SOURCES}.")
    numbers = _read_labels(labels)
    items = list(images)
    if len(items) != len(numbers):
        found = f"{len(items):,} images and {len(numbers):,} labels"
        raise InputError(f"There are {found}; allowed: one label per image.")
    return _make_rows(items, "image").add_column("label", numbers, feature=_feature(numbers))


def _make_rows(items: Sequence[Any], column: str) -> Dataset:
    """A Dataset with one column of images."""
    chunks: list[Dataset] = []
    waiting: list[dict | None] = []
    size = 0
    features = Features({column: Image()})
    with pixel_limit(1):  # without warnings of Pillow
        for number, item in enumerate(items):
            try:
                file = None if _is_missing(item) else _as_file(item)
            except MemoryError:
                raise
            except Exception as error:  # also what Pillow raises for an image that was opened and not yet read
                raise InputError(f"Image {number} cannot be used: {explain(error)}.") from error
            waiting.append(file)
            size += len(file["bytes"] or b"") if file else 0
            if size > CHUNK_BYTES:
                chunks.append(Dataset.from_dict({column: waiting}, features=features))
                waiting, size = [], 0
    chunks.append(Dataset.from_dict({column: waiting}, features=features))
    return datasets.concatenate_datasets(chunks)


def _as_file(item: Any) -> dict[str, Any]:
    """An image as a column of images stores it. Pixels become a PPM file, which is lossless and fast to read."""
    source = image_source(item)
    if isinstance(source, Path):
        return {"bytes": None, "path": str(source)}
    if isinstance(source, bytes):
        return {"bytes": source, "path": item.get("path") if isinstance(item, Mapping) else None}
    buffer = BytesIO()
    convert_image(source).save(buffer, format="PPM")
    return {"bytes": buffer.getvalue(), "path": None}


def _read_labels(values: Any) -> list[int | str | bool | None]:
    """One label per image, all of one type; None for a missing one.

    Raises:
        InputError: several labels per image; labels of several types or of another one.
    """
    shape = tuple(getattr(values, "shape", ()))
    if len(shape) == 2 and shape[1] != 1:
        raise InputError(f"The labels are {describe(values)}; allowed: N labels. Of one-hot rows, pass argmax(1).")
    values = values.reshape(-1) if len(shape) == 2 else values
    found = [_label(value) for value in values]
    kinds = {type(value) for value in found if value is not None}
    if kinds == {float} or kinds == {float, int}:  # pandas has whole numbers with gaps as floats
        fractions = [value for value in found if value is not None and not float(value).is_integer()]
        if fractions:
            raise InputError(f"A label is {fractions[0]:g}; allowed: whole numbers, text, or true and false.")
        return [None if value is None else int(value) for value in found]
    if len(kinds) > 1 or not kinds <= NAMED_AS.keys():
        named = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"The labels are of type {named}; allowed: all int, all str or all bool; None: no label.")
    return found


def _label(value: Any) -> Any:
    value = value.item() if getattr(value, "ndim", None) == 0 else value  # of numpy and torch
    if isinstance(value, str):
        return str(value) or None
    return None if _is_missing(value) else value


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _feature(values: Iterable[Any]) -> Value:
    kinds = {type(value) for value in values} - {type(None)}
    return Value(NAMED_AS[kinds.pop()] if kinds else "string")
