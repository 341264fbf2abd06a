"""Accuracy against the number of labelled images: where a probe is ahead of a network trained from scratch."""

from __future__ import annotations

import json
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score
from transformers import PreTrainedModel, set_seed

from hfprobe import provenance
from hfprobe.callbacks import EpochLines, StopOnSignal
from hfprobe.config import make_run
from hfprobe.data.columns import label_numbers
from hfprobe.data.resident import ImageBatches
from hfprobe.data.splits import VALIDATION_SHARE, Images, Splits
from hfprobe.errors import InputError
from hfprobe.features import FeatureSplit, extract_features, solve_head
from hfprobe.models import build_model
from hfprobe.progress import show_progress
from hfprobe.results import write_json
from hfprobe.training import build_trainer

POINTS_FILE = "label_efficiency.json"
# A few images make one batch an epoch: so many steps are taken at least, or the network would hardly move.
LEAST_STEPS = 300


def measure_label_efficiency(
    *, models: dict[str, dict[str, Any]], images: Images, shots: list[int], seeds: list[int], folder: Path
) -> dict[str, Any]:
    """Accuracy on the test images of each model at each number of training images per class and each seed.

    A seed draws its own images (more shots contain the fewer), initial weights and augmentation, all within one split
    into train and validation. A network is trained by the first recipe of its model, to its end; a probe is solved
    exactly, its penalty chosen on validation images of which it gets a quarter of the training images' number, as in
    the whole split. Points that the folder holds are not measured again; each is written down once it is there.

    Args:
        models: name of `available_models()` -> values for `make_run`, where they are not those of the first recipe.
        shots: training images per class.

    Returns:
        The content of `label_efficiency.json`: `setting`, `points` (`model`, `shots`, `seed`, `accuracy`, `n`,
        `seconds`), `hardware`, `versions`.

    Raises:
        InputError: more shots than a class has images; the folder holds points of another setting.
    """
    fewest = min(np.bincount(label_numbers(images.parts["train"])))
    if max(shots) > fewest:
        raise InputError(f"--shots {max(shots)} is more than the {fewest:,} training images of the smallest class.")
    options = {name: make_run(model=name, **values).model for name, values in models.items()}
    built, splits = {}, {}
    for name in models:
        set_seed(0)  # for the sake of backbones with random weights
        built[name] = build_model(name, labels=images.class_names, options=options[name])
        splits[name] = images.decode("train", "validation", "test", processor=built[name][1])
    setting = {
        "class_names": images.class_names,
        "data_fingerprint": next(iter(splits.values())).fingerprint,  # that of all: they differ in resolution alone
        "options": {name: vars(value) for name, value in options.items()},
    }
    points = _read_points(folder, setting)
    content = {
        "setting": setting,
        "points": points,
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
    }
    done = {(point["model"], point["shots"], point["seed"]) for point in content["points"]}
    wanted = [(name, count, seed) for count in sorted(shots) for name in models for seed in seeds]
    missing = [key for key in wanted if key not in done]
    probes = {  # a probe's features once for all seeds
        name: _extract_all(*built[name], splits[name])
        for name in {name for name, _, _ in missing}
        if hasattr(built[name][0], "extract_features")
    }
    known = len(wanted) - len(missing)
    with show_progress(total=len(wanted), initial=known, desc="Label efficiency", unit="point") as progress:
        for name, count, seed in missing:
            progress.set_postfix_str(f"{name}, {count} per class, seed {seed}")
            start = time.perf_counter()
            if name in probes:
                accuracy = _probe(probes[name], classes=len(images.class_names), count=count, seed=seed)
            else:
                accuracy = _train(splits[name], count=count, model=name, seed=seed, **models[name])
            content["points"].append(
                {
                    "model": name,
                    "shots": count,
                    "seed": seed,
                    "accuracy": accuracy,
                    "n": len(splits[name].test),
                    "seconds": round(time.perf_counter() - start, 1),
                }
            )
            write_json(folder / POINTS_FILE, content)
            progress.update()
    return content


def _read_points(folder: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """The points that a folder holds; options of models that are not asked for this time are added to `setting`."""
    path = folder / POINTS_FILE
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text())
        found, points = content["setting"], content["points"]
        measured = {point["model"] for point in points}
        others = {name: value for name, value in found["options"].items() if name not in setting["options"]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' is damaged. Delete it, or give another --report_dir.") from error
    # A model without points may have any options.
    found["options"] |= {name: value for name, value in setting["options"].items() if name not in measured}
    setting["options"] |= others
    if found != json.loads(json.dumps(setting)):
        differing = next(key for key in setting if found.get(key) != setting[key])
        raise InputError(
            f"'{path}' holds points of another setting: its {differing} is {found.get(differing)}, asked for is "
            f"{setting[differing]}. Give another --report_dir."
        )
    return points


def _positions(labels: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """`count` images of each class."""
    drawn = np.random.default_rng(seed).permutation(len(labels))
    return np.sort(np.concatenate([drawn[labels[drawn] == number][:count] for number in np.unique(labels)]))


def _extract_all(model: PreTrainedModel, processor: Any, splits: Splits) -> dict[str, FeatureSplit]:
    return {
        part: extract_features(model=model, processor=processor, split=getattr(splits, part), name=f"{part} images")
        for part in ("train", "validation", "test")
    }


def _probe(features: dict[str, FeatureSplit], *, classes: int, count: int, seed: int) -> float:
    def few(part: str, number: int) -> FeatureSplit:
        whole = features[part]
        chosen = _positions(whole.labels, count=number, seed=seed)
        return replace(whole, features=whole.features[:, chosen], labels=whole.labels[chosen])

    held_out = math.ceil(count * VALIDATION_SHARE / (1 - VALIDATION_SHARE))
    head = solve_head(few("train", count), few("validation", held_out), classes=classes)
    scores = features["test"].features[0] @ head.weight.T + head.bias
    return float(accuracy_score(features["test"].labels, scores.argmax(axis=1)))


def _train(splits: Splits, *, count: int, seed: int, **values: Any) -> float:
    few = replace(splits, train=splits.train.take(_positions(splits.train.labels, count=count, seed=seed)))
    recipe = make_run(**values).training
    steps = math.ceil(len(few.train) / recipe.per_device_train_batch_size)
    with tempfile.TemporaryDirectory() as folder:
        config = make_run(
            **values,
            seed=seed,
            output_dir=folder,
            num_train_epochs=max(recipe.num_train_epochs, math.ceil(LEAST_STEPS / steps)),
            # The last weights are taken: nothing is chosen, so nothing is evaluated or saved on the way.
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            report_to="none",
            disable_tqdm=True,
        )
        set_seed(seed)
        model, processor = build_model(config.training.model, labels=splits.class_names, options=config.model)
        trainer = build_trainer(config=config, model=model, processor=processor, splits=few)
        trainer.remove_callback(EpochLines)
        trainer.remove_callback(StopOnSignal)  # an interrupted point is measured again, not continued
        trainer.train()
        return trainer.predict(ImageBatches(splits.test, processor=processor)).metrics["test_accuracy"]
