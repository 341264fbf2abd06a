"""Look at images: headers, duplicates, suspect labels and outliers, from the features that the probe trains on."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import set_seed

from hfprobe.data.pixels.image_files import MAX_PIXELS, ImageHeader
from hfprobe.data.pixels.reading import read_headers, row_numbers
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.sources.columns import paths_below
from hfprobe.data.splits.images import Images, Splits
from hfprobe.models import find_family
from hfprobe.models.linear_probe.features import FeatureBatches
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import list_some, shorten
from hfprobe.system.progress import show_progress
from hfprobe.system.provenance import find_hardware, versions
from hfprobe.tasks.audit import duplicates as search
from hfprobe.tasks.audit.outliers import find_outliers
from hfprobe.tasks.audit.result import (
    Audit,
    Duplicates,
    ImageKey,
    Outlier,
    PartSummary,
    Provenance,
    Sizes,
    Summary,
    SuspectLabel,
    shown_images,
)
from hfprobe.tasks.audit.suspects import FOLDS, assign_folds, out_of_sample_probabilities, rank_suspects
from hfprobe.training.precision import settle_precision

logger = logging.getLogger(__name__)

SAMPLES_PER_CLASS = 12
SMALL, THUMBNAIL_SIDE = 64, 160  # pixels; images of at most SMALL are shown as they are
UNREADABLE_NAMED = 20


def audit(
    images: Images,
    *,
    backbone: str = "auto",
    backbone_weights: str = "hub",
    feature_precision: str | None = None,
) -> Audit:
    """Look at all parts of a dataset.

    The features are those that training and evaluation of the probe use, and are cached: a later training does not
    extract them again. Images that cannot be read are named and left out.

    Args:
        images: from `load_images`.
        backbone, backbone_weights, feature_precision: as for training a probe.

    Raises:
        InputError: a backbone that does not exist or whose weights cannot be had.
        InputError, MachineError: the cache cannot be written.
    """
    clock = _Clock()
    values = {} if feature_precision is None else {"feature_precision": feature_precision}
    run: dict[str, Any] = {"backbone": backbone, "backbone_weights": backbone_weights, "seed": images.seed} | values
    config = settle_precision(make_run(model="probe", dataset=images.arguments.dataset, **run).for_images(images))
    family = find_family("probe")
    with clock("headers"):
        headers = _read_all_headers(images)
    set_seed(config.training.seed)  # as training does, for a backbone with random weights
    model, processor = family.build(options=config.model, labels=images.class_names)
    images = replace(images, arguments=replace(images.arguments, skip_unreadable=True))
    with clock("decoding"):
        splits = images.decode(*images.parts, processor=processor)
    everything = _Everything.gather(images, splits)
    model.to(config.training.device, memory_format=torch.channels_last)
    features = []
    for name, part in everything.parts.items():
        how: dict[str, Any] = {"options": config.model, "train": True} if name == "train" else {}
        inputs = family.inputs(model, processor, part, name=f"{NAMES.get(name, name)} images", **how)
        assert isinstance(inputs, FeatureBatches)
        features.append(inputs.features)
        clock.add("features", inputs.preparation_seconds)
    stacked = np.concatenate(features)
    with clock("duplicates"):
        grey = np.concatenate([search.make_grey(part) for part in everything.parts.values()])
        found = _find_duplicates(everything, stacked, grey, headers)
    with clock("labels"):
        folds = min(FOLDS, len(everything))
        assigned = assign_folds(everything.labels, found.owners, folds=folds, seed=images.seed)
        probabilities = out_of_sample_probabilities(
            stacked, everything.labels, assigned, classes=len(images.class_names)
        )
    kept = [headers[key] for key in everything.keys]
    unusual = find_outliers(grey, kept)
    audited = Audit(
        summary=_summarize(images, everything, kept, found),
        duplicates=found.groups,
        labels=_list_suspects(everything, probabilities, images.class_names),
        outliers=[
            Outlier(**vars(everything.name(at)), measure=measure, value=round(value, 3))  # type: ignore[arg-type]
            for measure, positions in unusual.items()
            for at, value in positions
        ],
        provenance=Provenance(
            dataset=images.arguments.recorded_dataset,
            data_fingerprint=everything.fingerprint(images.class_names),
            backbone=family.describe(model),
            seed=images.seed,
            folds=folds,
            seconds=clock.seconds,
            hardware=find_hardware(),
            versions=versions(),
        ),
        samples=_draw_samples(everything, images.class_names, seed=images.seed),
    )
    return replace(audited, thumbnails=everything.draw(shown_images(audited)))


# Names of the parts in progress bars, as training has them.
NAMES = {"train": "training"}


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = round(self.seconds.get(stage, 0) + seconds, 1)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)


def _read_all_headers(images: Images) -> dict[tuple[str, int], ImageHeader]:
    """(split, row) -> header of each image that has a readable one; the others are logged, all at once."""
    found: dict[tuple[str, int], ImageHeader] = {}
    unreadable: list[str] = []
    total = sum(map(len, images.parts.values()))
    limit = images.arguments.max_pixels or MAX_PIXELS
    with show_progress(total=total, desc="Reading headers", unit="image", inner=True) as progress:
        for name, rows in images.parts.items():
            split = images.origins[name]
            headers = read_headers(rows, split=split, max_pixels=limit)
            for row, header in zip(row_numbers(rows).tolist(), headers, strict=True):
                if isinstance(header, str):
                    unreadable.append(header)
                else:
                    found[split, row] = header
                progress.update()
    if unreadable:
        named = list_some(list(map(shorten, unreadable)), UNREADABLE_NAMED, mark="; ")
        logger.warning("%d of %d images cannot be read: %s.", len(unreadable), total, named)
    return found


@dataclass(frozen=True)
class _Everything:
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
    def gather(cls, images: Images, splits: Splits) -> _Everything:
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


@dataclass(frozen=True)
class _FoundDuplicates:
    """Groups of duplicates; and (N,) the same number for images of one group."""

    groups: list[Duplicates]
    owners: np.ndarray


def _find_duplicates(
    everything: _Everything, features: np.ndarray, grey: np.ndarray, headers: dict[tuple[str, int], ImageHeader]
) -> _FoundDuplicates:
    count = len(everything)
    sizes = [(header.width, header.height) for header in map(headers.__getitem__, everything.keys)]
    same = search.find_exact(list(everything.parts.values()), sizes)
    near = search.find_near(features, grey)
    exact_owners = search.join(count, same)
    owners = search.join(count, np.concatenate([same, near.pairs]))
    lowest = np.ones(count)
    np.minimum.at(lowest, owners[near.pairs[:, 0]], near.similarities)
    members: dict[int, list[int]] = {}
    for position in np.flatnonzero(np.bincount(owners, minlength=count)[owners] > 1).tolist():
        members.setdefault(int(owners[position]), []).append(position)
    groups = []
    for owner, positions in members.items():
        is_exact = len({int(exact_owners[position]) for position in positions}) == 1
        similarity = 1.0 if is_exact else round(float(lowest[owner]), 4)
        named = [everything.name(position) for position in positions]
        groups.append((positions, Duplicates("exact" if is_exact else "near", named, similarity)))
    last = len(everything.parts) - 1

    def order(item: tuple[list[int], Duplicates]) -> tuple[bool, int, float]:
        parts = set(everything.owners[item[0]].tolist())
        return not (last in parts and len(parts) > 1), -len(item[0]), -item[1].similarity

    return _FoundDuplicates([group for _, group in sorted(groups, key=order)], owners)


def _summarize(images: Images, everything: _Everything, headers: list[ImageHeader], found: _FoundDuplicates) -> Summary:
    names = list(everything.parts)
    # (N, parts) how many images of each part are in the group of each image.
    counts = np.zeros((len(everything), len(names)), dtype=np.int64)
    np.add.at(counts, (found.owners, everything.owners), 1)
    counts = counts[found.owners]
    parts = {}
    for number, name in enumerate(names):
        mine = everything.owners == number
        others = counts[mine] - (np.arange(len(names)) == number)  # without the image itself
        rows = np.array([row for _, row in everything.keys])[mine]
        parts[name] = PartSummary(
            split=images.origins[name],
            images=int(mine.sum()),
            effective_n=len(np.unique(found.owners[mine])),
            duplicated_in={other: int((others[:, at] > 0).sum()) for at, other in enumerate(names)},
            duplicate_rows=rows[others.sum(1) > 0].tolist(),
        )
    per_class = np.bincount(everything.labels, minlength=len(images.class_names))
    sizes = sorted((header.width * header.height, header.width, header.height) for header in headers)
    median = float(np.median([min(size[1:]) for size in sizes])) if sizes else 0.0
    return Summary(
        source=images.source,
        classes=dict(zip(images.class_names, per_class.tolist(), strict=True)),
        parts=parts,
        formats=dict(Counter(header.format for header in headers).most_common()),
        modes=dict(Counter(header.mode for header in headers).most_common()),
        sizes=Sizes(sizes[0][1:], sizes[-1][1:], median) if sizes else None,
        division=images.division,
        left_out=images.left_out,
        unreadable=[sentence for part in everything.parts.values() for sentence in part.unreadable],
    )


def _list_suspects(everything: _Everything, probabilities: np.ndarray, class_names: list[str]) -> list[SuspectLabel]:
    suggested = probabilities.argmax(1)
    return [
        SuspectLabel(
            **vars(everything.name(at)),
            given=class_names[everything.labels[at]],
            suggested=class_names[suggested[at]],
            probability_given=round(float(probabilities[at, everything.labels[at]]), 6),
            probability_suggested=round(float(probabilities[at, suggested[at]]), 6),
        )
        for at in rank_suspects(probabilities, everything.labels).tolist()
    ]


def _draw_samples(everything: _Everything, class_names: list[str], *, seed: int) -> dict[str, list[tuple[str, int]]]:
    """Some images of each class."""
    order = np.random.default_rng(seed).permutation(len(everything))
    return {
        name: [everything.keys[at] for at in order[everything.labels[order] == number][:SAMPLES_PER_CLASS]]
        for number, name in enumerate(class_names)
    }
