"""Look at images: headers, duplicates, suspect labels and outliers, from the features that the probe trains on."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from hfprobe.data.pixels.image_files import MAX_PIXELS, ImageHeader
from hfprobe.data.pixels.reading import read_headers, row_numbers
from hfprobe.data.splits.audited import Duplicates
from hfprobe.data.splits.editing import keep_together
from hfprobe.data.splits.images import Images
from hfprobe.models import find_family
from hfprobe.models.linear_probe.features import FeatureBatches
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import list_some, shorten
from hfprobe.system.progress import show_progress
from hfprobe.system.provenance import find_hardware, versions
from hfprobe.tasks.audit import duplicates as search
from hfprobe.tasks.audit.alignment import make_grey
from hfprobe.tasks.audit.gathered import Gathered
from hfprobe.tasks.audit.outliers import find_outliers
from hfprobe.tasks.audit.parts import PartSummary, summarize_duplicates
from hfprobe.tasks.audit.result import (
    Audit,
    Outlier,
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
UNREADABLE_NAMED = 20


def audit(
    images: Images,
    *,
    backbone: str = "auto",
    backbone_weights: str = "hub",
    feature_precision: str | None = None,
    together: bool = False,
) -> Audit:
    """Look at all parts of a dataset.

    The features are those that training and evaluation of the probe use, and are cached: a later training does not
    extract them again. Images that cannot be read are named and left out.

    Args:
        images: from `load_images`.
        backbone, backbone_weights, feature_precision: as for training a probe.
        together: describe the parts as they are once duplicates are kept together, see `keep_together`.

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
    everything = Gathered.gather(images, splits)
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
        grey = np.concatenate([make_grey(part) for part in everything.parts.values()])
        found = _find_duplicates(everything, stacked, grey, headers)
    with clock("labels"):
        folds = min(FOLDS, len(everything))
        assigned = assign_folds(everything.labels, found.owners, folds=folds, seed=images.seed)
        probabilities = out_of_sample_probabilities(
            stacked, everything.labels, assigned, classes=len(images.class_names)
        )
    kept = [headers[key] for key in everything.keys]
    unusual = find_outliers(grey, kept)
    groups = [[(image.split, image.row) for image in group.images] for group in found.groups]
    placed = keep_together(images, groups) if together else images
    readable = set(everything.keys)
    rows = {}
    for name, split in images.origins.items():
        rows[name] = split, [row for row in row_numbers(placed.parts[name]).tolist() if (split, row) in readable]
    parts, duplicates = summarize_duplicates(rows, found.groups)
    audited = Audit(
        summary=_summarize(placed, everything, kept, parts),
        duplicates=duplicates,
        labels=_list_suspects(everything, probabilities, images.class_names),
        outliers=[
            Outlier(**vars(everything.name(at)), measure=measure, value=round(value, 3))  # type: ignore[arg-type]
            for measure, positions in unusual.items()
            for at, value in positions
        ],
        provenance=Provenance(
            dataset=images.arguments.recorded_dataset,
            splits=images.contents,
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
class _FoundDuplicates:
    """Groups of duplicates; and (N,) the same number for images of one group."""

    groups: list[Duplicates]
    owners: np.ndarray


def _find_duplicates(
    everything: Gathered, features: np.ndarray, grey: np.ndarray, headers: dict[tuple[str, int], ImageHeader]
) -> _FoundDuplicates:
    count = len(everything)
    sizes = [(header.width, header.height) for header in map(headers.__getitem__, everything.keys)]
    same = search.find_exact(list(everything.parts.values()), sizes)
    near = search.find_near(features, grey, same)
    exact_owners, owners = search.join(count, same), near.owners
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
        groups.append(Duplicates("exact" if is_exact else "near", named, similarity))
    return _FoundDuplicates(groups, owners)


def _summarize(
    images: Images, everything: Gathered, headers: list[ImageHeader], parts: dict[str, PartSummary]
) -> Summary:
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


def _list_suspects(everything: Gathered, probabilities: np.ndarray, class_names: list[str]) -> list[SuspectLabel]:
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


def _draw_samples(everything: Gathered, class_names: list[str], *, seed: int) -> dict[str, list[tuple[str, int]]]:
    """Some images of each class."""
    order = np.random.default_rng(seed).permutation(len(everything))
    return {
        name: [everything.keys[at] for at in order[everything.labels[order] == number][:SAMPLES_PER_CLASS]]
        for number, name in enumerate(class_names)
    }
