"""Duplicates: features of a frozen backbone propose pairs of images, and their aligned pixels decide with them.

The features find a changed copy among many images, but also other images of the same kind of object, and so do the
pixels: airplanes before an empty sky correlate. A pair of duplicates stands out: its details correlate, although there
are many of them, and its features are closer to each other than to those of other similar images.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import scipy.cluster.hierarchy
import torch

from hfprobe.data.pixels.store import ImageSplit
from hfprobe.system.progress import show_progress
from hfprobe.tasks.audit.alignment import compare_pixels, measure_detail_share

NEIGHBOURS, PIXEL_NEIGHBOURS = 4, 2  # of each image are looked at, by features and by small pixels
LEAST_COSINE, LEAST_PIXEL_COSINE = 0.45, 0.85  # of centred vectors; aligned pixels are not compared below
ROWS_AT_ONCE, PAIRS_AT_ONCE = 1024, 4096
# The evidence of a pair is the correlation of its details, plus STAND_OUT_WEIGHT times how far the cosine of its
# features exceeds that of each image and its CROWD-th nearest one, plus SHARE_WEIGHT times the logarithm of the smaller
# share of pixels that have detail. The weights are those of a logistic regression on 219 pairs of CIFAR-10's training
# and test images that were judged by eye; benchmarks/RESULTS.md states the errors.
CROWD, STAND_OUT_WEIGHT, SHARE_WEIGHT = 8, 0.75, 0.25
LEAST_STAND_OUT = -0.1  # less says no more: the features of strongly blurred copies are like those of any image
LEAST_GREY, LEAST_DETAIL, LEAST_EVIDENCE = 0.8, 0.6, 0.68
# Where all images look alike (digits, X-rays), LEAST_EVIDENCE is not enough. There, the evidence must exceed the
# median of RANDOM_PAIRS by CHANCE standard deviations, but at most MOST_REQUIRED, which almost equal pixels reach.
RANDOM_PAIRS, CHANCE, MOST_REQUIRED = 2000, 5.5, 0.9
# Groups: images that are linked on average with LEAST_LINK, among at most MOST_LINKED, whose pairs are all compared.
LEAST_LINK, MOST_LINKED = 0.5, 100


def find_candidates(vectors: np.ndarray, *, neighbours: int, least: float, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of images whose vectors are similar: each image with its nearest neighbours.

    Args:
        vectors: (N, F) float32; they are centred.
        neighbours: of each image, at most.
        least: cosine of a pair.
        what: the vectors in a progress bar.

    Returns:
        (P, 2) int64, the smaller position first, without repetitions; and (N,) the cosine of each image and its
        CROWD-th nearest one (of the last one, if there are fewer), at least 0.
    """
    count = len(vectors)
    ranks = min(max(neighbours, CROWD), count - 1)
    found, crowding = [torch.empty(0, dtype=torch.int64)], [torch.zeros(0 if ranks > 0 else count)]
    unit = torch.from_numpy(_centre(vectors))
    with show_progress(total=count, desc=f"Comparing {what}", unit="image", inner=True) as progress:
        for first in range(0, count if ranks > 0 else 0, ROWS_AT_ONCE):
            rows = torch.arange(first, min(first + ROWS_AT_ONCE, count))
            cosines = unit[rows] @ unit.T
            cosines[torch.arange(len(rows)), rows] = -2  # not itself
            best, others = cosines.topk(ranks)
            crowding.append(best[:, min(CROWD, ranks) - 1].clamp(min=0))
            best, others = best[:, :neighbours], others[:, :neighbours]
            one, other = rows[:, None].expand_as(others)[best >= least], others[best >= least]
            found.append(torch.minimum(one, other) * count + torch.maximum(one, other))
            progress.update(len(rows))
    keys = torch.cat(found).unique().numpy()
    return np.stack([keys // count, keys % count], axis=1), torch.cat(crowding).numpy()


def _centre(vectors: np.ndarray) -> np.ndarray:
    """(N, F) float32 vectors minus their mean, of length 1."""
    centred = vectors.astype(np.float32) - vectors.mean(axis=0, dtype=np.float32)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True).clip(min=1e-12)
    return centred


def find_exact(parts: Sequence[ImageSplit], sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """(P, 2) pairs of positions, counted through all parts, of images with the same decoded pixels.

    These have the same digest, which of a JPEG file depends on its bytes, or the same size and the same stored pixels.

    Args:
        sizes: width and height of each image, before it was fitted to a model.
    """
    same: dict[tuple, list[int]] = defaultdict(list)
    position = 0
    for part in parts:
        for image, digest in zip(part.images, part.digests, strict=True):
            stored = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            same[image.shape, sizes[position], stored].append(position)
            same["digest", digest.tobytes()].append(position)
            position += 1
    pairs = {(places[0], other) for places in same.values() for other in places[1:]}
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True)
class NearDuplicates:
    """Near duplicates.

    Attributes:
        owners: (N,) the same number, the smallest position, for images of one group.
        pairs: (P, 2) positions of the pairs that joined the groups.
        similarities: (P,) the lower one of the correlations of `compare_pixels`.
    """

    owners: np.ndarray
    pairs: np.ndarray
    similarities: np.ndarray


def find_near(features: np.ndarray, grey: np.ndarray, same: np.ndarray) -> NearDuplicates:
    """Groups of images that show the same thing, changed or not.

    A chain of pairs is no group: average linkage (Sokal and Michener 1958) divides it where the mean evidence of all
    pairs between two parts is below LEAST_LINK. Exact duplicates count as one image and stay together. A group has at
    most MOST_LINKED different images, which bounds the comparisons.

    Args:
        features: (N, F) float32 of a frozen backbone.
        grey: (N, SIDE, SIDE) of `make_grey`.
        same: (P, 2) of `find_exact`.
    """
    thumbnails = torch.nn.functional.avg_pool2d(torch.from_numpy(grey)[:, None], 2).flatten(1)
    thumbnails = thumbnails - thumbnails.mean(dim=1, keepdim=True)
    proposed, crowding = find_candidates(features, neighbours=NEIGHBOURS, least=LEAST_COSINE, what="features")
    # Blurred and strongly compressed copies, whose features differ, have almost the same small pixels.
    by_pixels, _ = find_candidates(
        thumbnails.numpy(), neighbours=PIXEL_NEIGHBOURS, least=LEAST_PIXEL_COSINE, what="small images"
    )
    compare = _Comparison(features, grey, crowding)
    owners = join(len(grey), same)
    pairs = np.unique(np.sort(owners[np.concatenate([proposed, by_pixels])], axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    evidence, grey_correlation, detail_correlation = compare(pairs)
    alike = (grey_correlation >= LEAST_GREY) & (detail_correlation >= LEAST_DETAIL)
    kept = np.flatnonzero(alike & (evidence >= compare.required()))
    kept = kept[np.argsort(-evidence[kept], kind="stable")]
    pairs, similarities = pairs[kept], np.minimum(grey_correlation, detail_correlation)[kept]
    linked = _link(join(len(grey), pairs, most=MOST_LINKED), compare)
    inside = linked[pairs[:, 0]] == linked[pairs[:, 1]]
    # Images that only others joined, which are in another group now, are no duplicates of each other.
    linked = np.where(np.isin(linked, linked[pairs[inside, 0]]), linked, np.arange(len(grey)))
    return NearDuplicates(linked[owners], pairs[inside], similarities[inside])


class _Comparison:
    """The evidence that pairs of images are duplicates."""

    def __init__(self, features: np.ndarray, grey: np.ndarray, crowding: np.ndarray):
        self.unit, self.grey, self.crowding = _centre(features), grey, crowding
        self.share = np.log(measure_detail_share(grey))

    def __call__(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(P,) evidence of pairs (P, 2), and both correlations of `compare_pixels`."""
        grey, detail = compare_pixels(self.grey, pairs)
        chunks = [pairs[first : first + PAIRS_AT_ONCE] for first in range(0, len(pairs), PAIRS_AT_ONCE)]
        cosines = [(self.unit[chunk[:, 0]] * self.unit[chunk[:, 1]]).sum(axis=1) for chunk in chunks]
        stand_out = np.concatenate([np.empty(0, dtype=np.float32), *cosines]) - self.crowding[pairs].mean(axis=1)
        evidence = detail + STAND_OUT_WEIGHT * stand_out.clip(LEAST_STAND_OUT)
        evidence += SHARE_WEIGHT * self.share[pairs].min(axis=1)
        return evidence, grey, detail

    def required(self) -> float:
        """The evidence that a pair of duplicates must have in these images."""
        pairs = np.random.default_rng(0).integers(0, len(self.grey), (RANDOM_PAIRS, 2))
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        if not len(pairs):
            return LEAST_EVIDENCE
        # The upper tail is the one that false duplicates come from: 1.645 standard deviations of a normal distribution.
        median, high = np.quantile(self(pairs)[0], [0.5, 0.95])
        return float(np.clip(median + CHANCE * (high - median) / 1.645, LEAST_EVIDENCE, MOST_REQUIRED))


def _link(owners: np.ndarray, compare: _Comparison) -> np.ndarray:
    """(N,) owners of the groups into which average linkage divides the given ones."""
    members = defaultdict(list)
    for position in np.flatnonzero(np.bincount(owners)[owners] > 2).tolist():
        members[owners[position]].append(position)
    pairs = [pair for group in members.values() for pair in combinations(group, 2)]
    evidence, *_ = compare(np.array(pairs, dtype=np.int64).reshape(-1, 2))
    owners, start = owners.copy(), 0
    for group in members.values():
        stop = start + len(group) * (len(group) - 1) // 2
        # Certain pairs count no more than sufficient ones: otherwise, they would hold a chain together.
        distances = LEAST_EVIDENCE - evidence[start:stop].clip(0, LEAST_EVIDENCE)
        start = stop
        tree = scipy.cluster.hierarchy.average(distances)
        cluster = scipy.cluster.hierarchy.fcluster(tree, LEAST_EVIDENCE - LEAST_LINK, "distance")
        places = np.array(group)
        for number in np.unique(cluster):
            owners[places[cluster == number]] = places[cluster == number].min()
    return owners


def join(count: int, pairs: np.ndarray, *, most: int | None = None) -> np.ndarray:
    """(count,) the smallest position of the group of each position, where each pair (P, 2) joins two groups.

    Args:
        most: positions in a group; a pair that would exceed it does not join. Default: no limit.
    """
    owner, sizes = np.arange(count), np.ones(count, dtype=np.int64)

    def find(position: int) -> int:
        while owner[position] != position:
            owner[position] = owner[owner[position]]
            position = owner[position]
        return position

    for one, other in pairs.tolist():
        first, second = sorted((find(one), find(other)))
        if first != second and (most is None or sizes[first] + sizes[second] <= most):
            owner[second] = first
            sizes[first] += sizes[second]
    return np.array([find(position) for position in range(count)])
