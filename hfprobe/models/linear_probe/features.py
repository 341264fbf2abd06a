"""Frozen features, which are extracted once per view, cached on disk, and read by the Trainer one batch at a time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfprobe.data import cache
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.models.base import PREPROCESSING, STATISTICS
from hfprobe.models.linear_probe.finished_rows import FinishedRows, RowWriter, WrittenRows, remove_notes
from hfprobe.system import ranks
from hfprobe.system.files import create_array, read_json, sha256
from hfprobe.system.progress import show_progress
from hfprobe.system.provenance import versions

if TYPE_CHECKING:  # slow to import
    from transformers import BaseImageProcessor

    from hfprobe.models.linear_probe.modeling import LinearProbe

logger = logging.getLogger(__name__)

# Larger batches are faster on a GPU, not on two CPU cores (67, 72, 70 images/s of EfficientNet-Lite0 at 16, 32, 64).
CPU_BATCH_SIZE = 32
GPU_BATCH_SIZE = 512
DIGESTS = ".digests.npy"  # ends the name of the file with the digests of the images


@dataclass(frozen=True)
class FeatureSplit:
    """Features of one split.

    Attributes:
        features: (V, N, F) float32 of V views; memory-mapped if there is only one view.
        labels: (N,) int64.
        seconds: time that the backbone took for them, even if they were read from the cache.
    """

    features: np.ndarray
    labels: np.ndarray
    seconds: float = 0.0


class FeatureBatches(torch.utils.data.Dataset):
    """Cached features as the Trainer reads them: `features` (B, F) float32 and `labels` (B,) int64.

    Every view of an image is a separate row: the length is views x images.
    """

    def __init__(self, split: FeatureSplit):
        self.split = split
        self.features = split.features.reshape(-1, split.features.shape[-1])
        self.labels = np.tile(split.labels, len(split.features))

    @property
    def preparation_seconds(self) -> float:
        """Seconds that the backbone took, even if the features were read from the cache."""
        return self.split.seconds

    def set_epoch(self, epoch: int) -> None:
        """No effect: cached views are the same in every epoch."""

    def take(self, positions: np.ndarray) -> FeatureBatches:
        """The images at `positions`, (B,) integers, in all views."""
        subset = replace(self.split, features=self.split.features[:, positions], labels=self.split.labels[positions])
        return FeatureBatches(subset)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {key: value[0] for key, value in self.__getitems__([position]).items()}

    def __getitems__(self, positions: Sequence[int] | np.ndarray) -> dict[str, torch.Tensor]:
        return {
            "features": torch.from_numpy(self.features[positions]),
            "labels": torch.from_numpy(self.labels[positions]),
        }


def extract_features(
    *,
    model: LinearProbe,
    processor: BaseImageProcessor,
    split: ImageSplit,
    views: Sequence[int] = (0,),
    seed: int = 0,
    name: str = "images",
    precision: str = "fp32",
    augmentation: dict[str, Any] | None = None,
) -> FeatureSplit:
    """Run each image through the backbone once per view, in evaluation mode; cached features are not computed again.

    View 0 is the image itself, view 1 its mirror image, and each further view a random crop that depends on
    (seed, view, index). An interrupted extraction continues where it stopped; a cached file that was truncated or
    changed is computed again. Features are also taken from the files of other splits with the same images (of random
    crops, with the same row numbers): an image that was added, moved to another split or given another label costs no
    second pass for the others. In a run of several processes, all of them call this function together, and each one
    computes its share; the features do not depend on their number.

    Args:
        views: numbers of the views.
        seed: seed of the random crops.
        name: name of the split in progress bars and log lines.
        precision: fp32, or bf16: the backbone runs under bfloat16 autocast. Features are float32 in both.
        augmentation: of the random crops, see `hfprobe.data.pixels.transforms.crop_and_flip`; None: its defaults.

    Raises:
        InputError, MachineError: the cache cannot be written.
    """
    how: dict[str, Any] = {"seed": seed, "precision": precision, "augmentation": augmentation or {}}
    wanted = [View(model, processor, split, number=number, **how) for number in views]
    layers, seconds = zip(*(_load_or_extract(view, name=name) for view in wanted), strict=True)
    features = layers[0][None] if len(layers) == 1 else np.stack(layers)
    return FeatureSplit(features=features, labels=split.labels, seconds=sum(seconds))


@dataclass(frozen=True)
class View:
    """What determines the features of one view of a split; see `extract_features`."""

    model: LinearProbe
    processor: BaseImageProcessor
    split: ImageSplit
    number: int
    seed: int
    precision: str = "fp32"
    augmentation: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> np.ndarray:
        """(N, bytes) uint8: the digest of each image, and of random crops, which depend on it, the row number."""
        digests = self.split.digests
        rows = self.split.index.astype("<i8")[:, None].view(np.uint8)  # (N, 8)
        return digests if self.number <= 1 else np.concatenate([digests, rows], axis=1)


def cache_key(view: View) -> str:
    """A path in the cache that depends on everything that determines the features of one view.

    Its folder depends on everything but the images.
    """
    libraries, settings = versions(), view.processor.to_dict()
    parts = {
        "backbone": view.model.config.backbone,
        "weights": view.model.frozen_sha256(),
        # Not its auto_map, which a published model has.
        "preprocessing": {name: settings.get(name) for name in PREPROCESSING + STATISTICS},
        "view": [view.number, [view.seed, view.augmentation] if view.number > 1 else None],  # only crops are random
        "dtype": str(next(view.model.parameters()).dtype),
        "timm": libraries["timm"],
        "torch": libraries["torch"],
        "precision": view.precision,
    }
    if view.model.config.second_pooling is not None:
        parts["second_pooling"] = view.model.config.second_pooling
    folder = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]
    return f"{folder}/{view.split.fingerprint[:32]}"


def _load_or_extract(view: View, *, name: str) -> tuple[np.ndarray, float]:
    key = cache_key(view)
    ranks.check_same(key, what="images, backbone weights or libraries")
    kept = cache.cache_folder() / "features" / f"{key}.npy"
    seconds = ranks.from_first(lambda: _find_seconds(kept, view, name=name))
    if seconds is None:
        seconds = _extract(kept, view, name=name)
    return np.load(kept, mmap_mode="r"), seconds


def _find_seconds(kept: Path, view: View, *, name: str) -> float | None:
    """The seconds that cached features took; None without them, or if they were truncated or changed."""
    checksums = kept.with_suffix(".json")
    if not (kept.is_file() and checksums.is_file()):
        return None
    record = read_json(checksums)
    if record.get("sha256") == sha256(kept) and "seconds" in record:
        logger.info("Features of the %s: from the cache (view %d).", name, view.number)
        return float(record["seconds"])
    logger.warning("The cached features %s were truncated or changed; computing them again.", kept.name)
    return None


def _extract(kept: Path, view: View, *, name: str) -> float:
    """Compute the features of one view and write them to `kept`; each process of a run computes its share.

    Returns:
        The seconds that the backbone took, in the process that took the longest.
    """
    part = kept.with_suffix(".part")
    before = ranks.from_first(lambda: _begin(part, view))
    with ranks.together(), _keeping(part):
        written = _fill(part, view, before, name=name)
    shares = ranks.gather(written)
    seconds = max(share.seconds for share in shares)
    ranks.from_first(lambda: _publish(kept, view, shares, seconds=seconds))
    return seconds


def _begin(part: Path, view: View) -> FinishedRows:
    """Create the file for the features, or find the one of an interrupted extraction; copy what other files hold."""
    before = FinishedRows.read(part, count=len(view.split))
    with _keeping(part):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.with_suffix(".json").unlink(missing_ok=True)
        try:
            features = np.lib.format.open_memmap(part, mode="r+") if before.rows.any() else None
        except (FileNotFoundError, ValueError):  # the part itself was removed or truncated
            features = None
        if features is None:
            remove_notes(part)
            before = FinishedRows(np.zeros(len(view.split), dtype=bool), 0.0)
            features = create_array(part, dtype=np.float32, shape=(len(view.split), view.model.config.feature_size))
        missing, copied = _copy_known(part, features, view.identity, np.flatnonzero(~before.rows))
        features.flush()
    finished = np.ones(len(view.split), dtype=bool)
    finished[missing] = False
    return FinishedRows(finished, before.seconds + copied)


def _fill(part: Path, view: View, before: FinishedRows, *, name: str) -> WrittenRows:
    """Write this process's share of the rows that are missing; the batches do not depend on the number of processes."""
    missing, size = np.flatnonzero(~before.rows), batch_size(view.model)
    share = ranks.share_of(len(missing), batch_size=size)
    rows, batches = missing[share.start : share.stop], _batches_of(view)
    try:
        writer = RowWriter(part, before)
    except FileNotFoundError as error:
        raise cache.not_shared(part.parent) from error
    stage = f"Features of the {name}, view {view.number}{ranks.name_share()}"
    done = len(view.split) - len(missing)
    try:
        with show_progress(total=done + len(rows), initial=done, desc=stage, unit="image") as progress:
            for first in range(0, len(rows), size):
                positions = rows[first : first + size]
                writer.write(positions, _compute(view, batches, positions, size=size))
                progress.update(len(positions))
    finally:
        writer.note()
    return WrittenRows(rows, writer.checksum, writer.seconds)


def _batches_of(view: View) -> ImageBatches:
    batches = ImageBatches(
        view.split,
        processor=view.processor,
        mirror=view.number == 1,
        augment=view.augmentation if view.number > 1 else None,
        seed=view.seed,
    )
    batches.set_epoch(view.number)  # each view has its own random crops
    return batches


def batch_size(model: LinearProbe) -> int:
    """Images per batch of an extraction, on the device of the model."""
    return CPU_BATCH_SIZE if next(model.parameters()).device.type == "cpu" else GPU_BATCH_SIZE


def _compute(view: View, batches: ImageBatches, positions: np.ndarray, *, size: int) -> np.ndarray:
    """Features (M, F) float32 of the images at M positions, at most `size`."""
    device = next(view.model.parameters()).device
    view.model.eval()
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=view.precision == "bf16"),
    ):
        # Full batches, because the last bits of a feature depend on the size of its batch.
        pixels = batches.__getitems__(np.resize(positions, size))["pixel_values"]
        found = view.model.extract_features(pixels.to(device)).float().cpu().numpy()
    return np.ascontiguousarray(found[: len(positions)])


def _publish(kept: Path, view: View, shares: Sequence[WrittenRows], *, seconds: float) -> None:
    """Check that the file holds what each process has written, and move it into its place, with its checksums."""
    part = kept.with_suffix(".part")
    with _keeping(part):
        if not all(share.are_in(part) for share in shares):
            remove_notes(part)
            raise cache.not_shared(part.parent)
        os.replace(part, kept)
        np.save(kept.with_suffix(DIGESTS), view.identity)
        kept.with_suffix(".json").write_text(json.dumps({"sha256": sha256(kept), "seconds": seconds}))
        remove_notes(part)


@contextlib.contextmanager
def _keeping(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cache.cannot_keep("features", part.parent, error) from error


def _copy_known(part: Path, features: np.ndarray, digests: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, float]:
    """Copy the features of images that other files beside `part` hold.

    Args:
        digests: of the images of `part`, see `View.identity`.
        wanted: (M,) positions that have no features yet.

    Returns:
        The positions that are still without features, and the seconds that the backbone took for the others.
    """
    seconds = 0.0
    for other in sorted(part.parent.glob(f"*{DIGESTS}")):
        if not len(wanted):
            break
        kept = other.parent / (other.name.removesuffix(DIGESTS) + ".npy")
        record = read_json(kept.with_suffix(".json"))
        try:
            known = {digest.tobytes(): row for row, digest in enumerate(np.load(other))}
        except ValueError:  # truncated
            continue
        rows = np.array([known.get(digest.tobytes(), -1) for digest in digests[wanted]])
        if (rows < 0).all() or not kept.is_file() or record.get("sha256") != sha256(kept):
            continue
        features[wanted[rows >= 0]] = np.load(kept, mmap_mode="r")[rows[rows >= 0]]
        seconds += float(record["seconds"]) / len(known) * int((rows >= 0).sum())
        wanted = wanted[rows < 0]
    return wanted, seconds
