"""Choose between variants of a model, such as backbones of a probe, on some of the training and validation images.

Each variant gets the exact head on its features. Those that are clearly worse than the best one are dropped (the 95 %
interval of the difference excludes 0, and the exact test rejects); the others meet on more images. The images of a
round include those of the one before, whose features are in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import BaseImageProcessor

from hfprobe.data.splits.images import Images
from hfprobe.models import find_family
from hfprobe.models.linear_probe.features import FeatureBatches
from hfprobe.statistics.intervals import exact_interval
from hfprobe.statistics.paired import mcnemar_exact, paired_score_interval
from hfprobe.tasks.decide.features import read_features
from hfprobe.tasks.decide.plan import limit_images
from hfprobe.tasks.decide.runs import Run
from hfprobe.tasks.decide.stage_results import Ranked, Rates, Round

# Training images per class and validation images of each round.
ROUNDS = ((100, 500), (400, 2000))
LEAST_TRAIN, MOST_TRAIN = 200, 4000  # training images of a round, however many classes there are
NEIGHBOURS = 10
SIGNIFICANCE = 0.05


def round_sizes(images: Images, number: int) -> tuple[int, int]:
    """Numbers of training and of validation images of a round."""
    per_class, validation = ROUNDS[number]
    counts = {part: len(rows) for part, rows in images.parts.items()}
    classes = len(images.class_names)
    train = max(LEAST_TRAIN, min(MOST_TRAIN, per_class * classes), classes)
    return min(train, counts["train"]), min(max(validation, classes), counts["validation"])


def estimate_ranking(run: Run, rates: dict[str, Rates], images: Images) -> float:
    """Seconds of a ranking whose first round drops nothing."""
    train, validation = round_sizes(images, len(ROUNDS) - 1)
    own = [rates[name] for name in run.variants]
    once = sum(rate.start + rate.train * train + rate.infer * validation + rate.solve * train for rate in own)
    return once + max(rate.decode for rate in own) * (train + validation)


def rank(run: Run, images: Images, processors: Mapping[str, BaseImageProcessor]) -> list[Round]:
    """The rounds of a ranking, until one variant is left or all images of the last round were used.

    Args:
        run: with several variants, each with features and an exact head.
        images: those that the run may be trained on; test is not touched.
        processors: image processors of the variants of all runs, so that each file is decoded once for all of them.
    """
    names, rounds = list(run.variants), list[Round]()
    for number in range(len(ROUNDS)):
        train, validation = round_sizes(images, number)
        if len(names) == 1 or (rounds and (rounds[-1].train, rounds[-1].validation) == (train, validation)):
            break
        some = limit_images(images, train=train, evaluation=validation)
        left = [each for name, each in processors.items() if name in names or name not in run.variants]
        some.decode_for(left, parts=("train", "validation"))
        found = {name: _predict(run.choose(name), some) for name in names}
        rounds.append(_compare(found, train=train, validation=validation))
        names = [one.name for one in rounds[-1].ranked if one.kept]
    return rounds


def _predict(run: Run, images: Images) -> dict[str, Any]:
    """What a variant answers for the validation images."""
    start = time.perf_counter()
    features = read_features(run, images)
    model, train, validation = features.model, features.train, features.validation
    find_family(run.family).solve(model, train=train, validation=validation, options=features.config.model)
    with torch.inference_mode():
        logits = model.head(torch.from_numpy(np.array(validation.features)).to(model.device))
    return {
        "labels": validation.labels,
        "predictions": logits.argmax(-1).cpu().numpy(),
        "neighbours": _classify_by_neighbours(train, validation),
        "seconds": time.perf_counter() - start,
    }


def _classify_by_neighbours(train: FeatureBatches, validation: FeatureBatches) -> np.ndarray:
    """(N,) most frequent class among the NEIGHBOURS training images whose centred features have the highest cosine."""
    mean = train.features.mean(axis=0)
    units = [batches.features - mean for batches in (train, validation)]
    units = [unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12) for unit in units]
    nearest = np.argsort(-(units[1] @ units[0].T), axis=1, kind="stable")[:, :NEIGHBOURS]
    votes = np.eye(int(train.labels.max()) + 1)[train.labels[nearest]].sum(axis=1)
    return votes.argmax(axis=1)


def _compare(found: dict[str, dict[str, Any]], *, train: int, validation: int) -> Round:
    right = {name: one["predictions"] == one["labels"] for name, one in found.items()}
    order = sorted(found, key=lambda name: -right[name].mean())
    ranked = []
    for name in order:
        mine, best = right[name], right[order[0]]
        only = int((best & ~mine).sum()), int((mine & ~best).sum())
        difference = None if name == order[0] else paired_score_interval(*only, len(mine))
        ranked.append(
            Ranked(
                name=name,
                accuracy=float(mine.mean()),
                interval=exact_interval(int(mine.sum()), len(mine)),
                neighbours=float((found[name]["neighbours"] == found[name]["labels"]).mean()),
                difference=difference,
                seconds=round(found[name]["seconds"], 1),
                kept=difference is None or difference[1] >= 0 or mcnemar_exact(*only) >= SIGNIFICANCE,
            )
        )
    return Round(train, validation, ranked)
