"""How alike the pixels of two images are after one was shifted, mirrored or scaled to fit the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from hfprobe.data.pixels.reading import in_threads
from hfprobe.data.pixels.store import ImageSplit
from hfprobe.system.progress import show_progress

SIDE = 32  # of the small grey images that are aligned
MOST_SHIFT = 8  # pixels of SIDE, a quarter of the image, so that most of both images overlaps
SCALES = (1.1, 1.22)  # of one of both images: a part of it may have been enlarged
PAIRS_AT_ONCE = 512


def make_grey(part: ImageSplit) -> np.ndarray:
    """(N, SIDE, SIDE) float32 grey levels in [0, 255] of the images of a part."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    small = np.empty((len(part), SIDE, SIDE), dtype=np.float32)
    for first in range(0, len(part), PAIRS_AT_ONCE):
        images = torch.from_numpy(np.array(part.images[first : first + PAIRS_AT_ONCE]))
        small[first : first + len(images)] = _resize((images.float() @ weights)[:, None], SIDE)[:, 0].numpy()
    return small


def compare_pixels(grey: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations of the aligned images of each pair.

    One image is shifted by at most MOST_SHIFT, scaled by one of SCALES and mirrored or not, so that the sum of both
    correlations is highest. They are those of the pixels in which both overlap (Padfield 2012, "Masked object
    registration in the Fourier domain", without its masks), so brightness and contrast have no effect.

    Args:
        grey: (N, SIDE, SIDE) of `make_grey`.
        pairs: (P, 2) positions.

    Returns:
        (P,) correlation of the grey levels, and (P,) of their details (grey levels minus their surroundings).
    """
    images = torch.from_numpy(grey)
    chunks = [torch.from_numpy(pairs[first : first + PAIRS_AT_ONCE]) for first in range(0, len(pairs), PAIRS_AT_ONCE)]
    found = [np.empty((2, 0), dtype=np.float32)]

    def align(chunk: torch.Tensor) -> np.ndarray:
        return _align(images[chunk[:, 0]], images[chunk[:, 1]]).numpy()

    with (
        one_torch_thread(),
        show_progress(total=len(pairs), desc="Aligning pairs", unit="pair", inner=True) as progress,
    ):
        for correlations in in_threads(align, chunks):
            found.append(correlations)
            progress.update(correlations.shape[1])
    grey_correlation, detail_correlation = np.concatenate(found, axis=1)
    return grey_correlation, detail_correlation


def measure_detail_share(grey: np.ndarray) -> np.ndarray:
    """(N,) the share of the pixels of each image that have detail, in (0, 1].

    It is the perplexity (Jost 2006, "Entropy and diversity": the effective number) of the pixels, each weighted by the
    energy of the details around it. Of an object before an empty background it is small, and so is what the
    correlation of the details of two images says: few pixels decide it.

    Args:
        grey: (N, SIDE, SIDE) of `make_grey`.
    """
    shares = [np.empty(0, dtype=np.float32)]
    for first in range(0, len(grey), PAIRS_AT_ONCE):
        images = torch.from_numpy(grey[first : first + PAIRS_AT_ONCE])
        details = _apply(_SMOOTH, images) - _apply(_AROUND, images)
        energy = _apply(_SMOOTH, (details - details.mean(dim=(-2, -1), keepdim=True)).square()).flatten(1)
        weights = energy / energy.sum(dim=1, keepdim=True).clamp(min=1)  # the noise of a flat image stays small
        shares.append((torch.special.entr(weights).sum(dim=1).exp() / SIDE**2).numpy())
    return np.concatenate(shares)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch computes in the calling threads only: on small images, its own threads mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _align(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """(2, B) correlations of grey levels and details at the best alignment of `one` and `other`, (B, S, S)."""
    fixed = _Spectra(one)
    mirrored = other.flip(-1)
    direct = _best_shift(fixed, _Spectra(other))
    flipped = _best_shift(fixed, _Spectra(mirrored))
    use_mirror = flipped.sum(0) > direct.sum(0)
    best = torch.where(use_mirror, flipped, direct)
    moving = torch.where(use_mirror[:, None, None], mirrored, other)
    # Only pairs that fit roughly are worth the scales.
    rough = torch.nonzero(best[0] > 0.4)[:, 0]
    if len(rough):
        one, moving = one[rough], moving[rough]
        highest, whole = best[:, rough], (_Spectra(one), _Spectra(moving))
        for magnifier in _MAGNIFIERS:
            for found in (
                _best_shift(whole[0], _Spectra(_apply(magnifier, moving))),
                _best_shift(_Spectra(_apply(magnifier, one)), whole[1]),
            ):
                highest = torch.where(found.sum(0) > highest.sum(0), found, highest)
        best[:, rough] = highest
    return best


class _Spectra:
    """Grey levels and details of images (B, S, S) with what the correlation at each shift needs."""

    def __init__(self, grey: torch.Tensor):
        layers = torch.stack([grey, _apply(_SMOOTH, grey) - _apply(_AROUND, grey)])  # (2, B, S, S)
        layers = layers - layers.mean(dim=(-2, -1), keepdim=True)
        contrast = layers.square().mean(dim=(-2, -1), keepdim=True).sqrt()
        layers = layers / contrast.clamp(min=1)  # the noise of a flat image stays small
        self.layers = layers
        self.spectrum = torch.fft.rfft2(layers, s=(SIDE + MOST_SHIFT,) * 2)


def _best_shift(fixed: _Spectra, moving: _Spectra) -> torch.Tensor:
    """(2, B) correlations of grey levels and details at the shift where their sum is highest."""
    side = SIDE + MOST_SHIFT
    product = torch.fft.irfft2(fixed.spectrum * moving.spectrum.conj(), s=(side, side))
    product = product[..., _SHIFTS % side, :][..., _SHIFTS % side]  # (2, B, 2M + 1, 2M + 1)
    # Sums over the overlap at each shift: a shift of the one is the opposite shift of the other.
    mean_a, mean_b = _apply(_OVERLAP, fixed.layers), _apply(_OVERLAP.flip(0), moving.layers)
    spread_a = _apply(_OVERLAP, fixed.layers.square()) - mean_a.square() / _AREA
    spread_b = _apply(_OVERLAP.flip(0), moving.layers.square()) - mean_b.square() / _AREA
    # A flat overlap correlates with everything; it counts as if it had a tenth of the contrast of the image.
    floor = 0.01 * _AREA
    spread = torch.maximum(spread_a, floor) * torch.maximum(spread_b, floor)
    correlation = ((product - mean_a * mean_b / _AREA) * spread.rsqrt()).flatten(-2)  # (2, B, shifts)
    at = correlation.sum(0).argmax(-1)
    return correlation.gather(-1, at[None, :, None].expand(2, -1, 1))[..., 0].clamp(-1, 1)


def _apply(matrix: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """A separable linear operation, (K, S), on rows and columns of images (..., S, S)."""
    return matrix @ images @ matrix.T


def _box_filter(width: int) -> torch.Tensor:
    """(S, S): the mean of `width` pixels around each, mirrored at the edge."""
    reach = width // 2
    identity = torch.eye(SIDE)
    padded = torch.nn.functional.pad(identity[None], (reach, reach), mode="reflect")[0]
    return torch.nn.functional.avg_pool1d(padded, width, stride=1).T.contiguous()


def _magnifier(scale: float) -> torch.Tensor:
    """(S, S): enlarge the middle by `scale`, at least 1, to the same size."""
    inner = round(SIDE / scale)
    start = (SIDE - inner) // 2
    middle = torch.eye(SIDE)[None, :, start : start + inner]
    return torch.nn.functional.interpolate(middle, size=SIDE, mode="linear")[0].T.contiguous()


_SHIFTS = torch.arange(-MOST_SHIFT, MOST_SHIFT + 1)
_PIXELS = torch.arange(SIDE)
# (2M + 1, S): which pixels of the fixed image the other one covers at each shift, along one side.
_OVERLAP = ((_SHIFTS[:, None] <= _PIXELS) & (SIDE + _SHIFTS[:, None] > _PIXELS)).float()
_AREA = _OVERLAP.sum(1)[:, None] * _OVERLAP.sum(1)  # pixels
_SMOOTH, _AROUND = _box_filter(3), _box_filter(9)
_MAGNIFIERS = [_magnifier(scale) for scale in SCALES]


def _resize(images: torch.Tensor, side: int) -> torch.Tensor:
    if images.shape[-2:] == (side, side):
        return images
    return torch.nn.functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
