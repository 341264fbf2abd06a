"""Frozen features: extracted once per view, kept on disk, and served to the Trainer by the batch."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from hfprobe.data import cache
from hfprobe.data.store import ImageBatches, ImageSplit
from hfprobe.system.files import create_array, sha256
from hfprobe.system.progress import show_progress
from hfprobe.system.provenance import versions

logger = logging.getLogger(__name__)

# More is no faster on two CPU cores (67, 72, 70 images/s of EfficientNet-Lite0 at 16, 32, 64); a GPU wants more.
CPU_BATCH_SIZE = 32
GPU_BATCH_SIZE = 512
# Of an extraction, how far it is: writing it down at every batch took a twentieth of the time.
SECONDS_BETWEEN_NOTES = 5


@dataclass(frozen=True)
class FeatureSplit:
    """Features of one split.

    Attributes:
        features: (V, N, F) float32, one layer a view, memory-mapped where there is one view.
        labels: (N,) int64.
        seconds: that the backbone took to make them, also where they come from the cache.
    """

    features: np.ndarray
    labels: np.ndarray
    seconds: float = 0.0


class FeatureBatches(torch.utils.data.Dataset):
    """Cached features as the Trainer reads them: `features` (B, F) float32 and `labels` (B,) int64.

    Every view of an image is a row of its own: `len` is views x images.
    """

    def __init__(self, split: FeatureSplit):
        self.split = split
        self.features = split.features.reshape(-1, split.features.shape[-1])
        self.labels = np.tile(split.labels, len(split.features))

    @property
    def preparation_seconds(self) -> float:
        """What the backbone took, also where the features come from the cache."""
        return self.split.seconds

    def set_epoch(self, epoch: int) -> None:
        """Nothing is drawn anew: the views are in the cache."""

    def take(self, positions: np.ndarray) -> FeatureBatches:
        """The images at some positions, in all views."""
        few = replace(self.split, features=self.split.features[:, positions], labels=self.split.labels[positions])
        return FeatureBatches(few)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, torch.Tensor]:
        return {
            "features": torch.from_numpy(self.features[positions]),
            "labels": torch.from_numpy(self.labels[positions]),
        }


def extract_features(
    *,
    model: PreTrainedModel,
    processor: Any,
    split: ImageSplit,
    views: Sequence[int] = (0,),
    seed: int = 0,
    name: str = "images",
) -> FeatureSplit:
    """Each image through the backbone once per view, in evaluation mode; what the cache holds is not computed again.

    View 0 is the plain image, view 1 its mirror image, further ones are random crops keyed by (seed, view, index). An
    extraction that was interrupted goes on where it stopped; a cached file that was cut or changed is made again.

    Args:
        model: has `extract_features` and `frozen_sha256`.
        views: their numbers.
        name: of the split, for the progress bar.

    Raises:
        MachineError: no room for the features.
    """
    layers, seconds = zip(
        *(
            _load_or_extract(model=model, processor=processor, split=split, view=view, seed=seed, name=name)
            for view in views
        ),
        strict=True,
    )
    features = layers[0][None] if len(layers) == 1 else np.stack(layers)
    return FeatureSplit(features=features, labels=split.labels, seconds=sum(seconds))


def cache_key(*, model: PreTrainedModel, processor: Any, split: ImageSplit, view: int, seed: int) -> str:
    """32 hex digits over everything that the features of one view depend on."""
    libraries = versions()
    parts = {
        "backbone": model.config.backbone,
        "weights": model.frozen_sha256(),
        "preprocessing": processor.to_dict(),
        "images": split.fingerprint,
        "view": [view, seed if view > 1 else None],  # only crops are drawn
        "dtype": str(next(model.parameters()).dtype),
        "timm": libraries["timm"],
        "torch": libraries["torch"],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _load_or_extract(
    *, model: PreTrainedModel, processor: Any, split: ImageSplit, view: int, seed: int, name: str
) -> tuple[np.ndarray, float]:
    folder = cache.cache_folder() / "features"
    kept = folder / f"{cache_key(model=model, processor=processor, split=split, view=view, seed=seed)}.npy"
    sums = kept.with_suffix(".json")
    if kept.is_file() and sums.is_file():
        record = _read_json(sums)
        if record.get("sha256") == sha256(kept) and "seconds" in record:
            logger.info("Features of the %s: from the cache (view %d).", name, view)
            return np.load(kept, mmap_mode="r"), record["seconds"]
        logger.warning("The cached features %s were cut or changed; making them again.", kept.name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sums.unlink(missing_ok=True)
        part = kept.with_suffix(".part")
        seconds = _extract_to(part, model, processor, split, view, seed, name)
        os.replace(part, kept)
        sums.write_text(json.dumps({"sha256": sha256(kept), "seconds": seconds}))
    except OSError as error:
        raise cache.cannot_keep("features", folder, error) from error
    return np.load(kept, mmap_mode="r"), seconds


def _extract_to(
    part: Path, model: PreTrainedModel, processor: Any, split: ImageSplit, view: int, seed: int, name: str
) -> float:
    """Fill `part`; the seconds it took in all.

    Rows already written stand in a file beside it, so that an interrupted call can be continued.
    """
    counter = part.with_suffix(".rows")
    shape = (len(split), model.config.feature_size)
    record = {"rows": 0, "seconds": 0.0} | _read_json(counter)
    done, earlier = record["rows"], record["seconds"]
    try:
        features = np.lib.format.open_memmap(part, mode="r+") if done else None
    except (FileNotFoundError, ValueError):  # the part itself was removed or cut
        features = None
    if features is None:
        done, earlier = 0, 0.0
        features = create_array(part, dtype=np.float32, shape=shape)
    batches = ImageBatches(split, processor=processor, mirror=view == 1, augment={} if view > 1 else None, seed=seed)
    batches.set_epoch(view)  # of random crops: each view has its own
    device = next(model.parameters()).device
    batch_size = CPU_BATCH_SIZE if device.type == "cpu" else GPU_BATCH_SIZE
    model.eval()
    start = time.perf_counter() - earlier

    def note(rows: int) -> None:
        features.flush()  # first, so that no row is counted that a power cut could take
        counter.write_text(json.dumps({"rows": rows, "seconds": time.perf_counter() - start}))

    noted = time.perf_counter()
    stage = f"Features of the {name}, view {view}"
    try:
        with (
            show_progress(total=len(split), initial=done, desc=stage, unit="image") as progress,
            torch.inference_mode(),
        ):
            for first in range(done, len(split), batch_size):
                positions = np.arange(first, min(first + batch_size, len(split)))
                pixels = batches.__getitems__(positions)["pixel_values"]
                features[positions] = model.extract_features(pixels.to(device)).float().cpu().numpy()
                done = first + len(positions)
                progress.update(len(positions))
                if time.perf_counter() - noted > SECONDS_BETWEEN_NOTES:
                    note(done)
                    noted = time.perf_counter()
    finally:
        note(done)
    counter.unlink(missing_ok=True)
    return time.perf_counter() - start


def _read_json(path: Path) -> dict[str, Any]:
    """What a small record holds; nothing where it is missing or was cut."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
