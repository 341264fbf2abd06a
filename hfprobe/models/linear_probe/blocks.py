"""Rows of features in float64, a block at a time, and sums over them that all processes of a run compute together.

The blocks, the parts that they form and the order in which sums are added depend on the number of rows alone. Therefore
a sum has the same bits whatever the number of processes, if each of them has as many threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from hfprobe.system import ranks
from hfprobe.system.machine import available_memory

# Rows per block. Smaller ones fit into a cache, but several threads then wait for each other more often than they work.
BLOCK = 1024
# Consecutive blocks form at most so many parts, which the processes divide: more processes than parts are not used.
PARTS = 16
# Blocks are kept in float64 if all of them take at most this share of the free memory; otherwise they are converted
# again each time, which makes a sum a fifth slower.
KEPT_SHARE = 0.5
# The fewest values N x F that processes share: below, a sum takes less time than its exchange on busy cores, and each
# process computes all of it.
LEAST_SHARED = 4_000_000


class Rows(Protocol):
    """(N, F) values, of which a slice of rows is read at a time: an array, a memory map, or `Chosen`."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Chosen:
    """The rows of an array at some positions, which are copied when they are read.

    Attributes:
        values: (N, F).
        positions: (M,) integers.
    """

    values: np.ndarray
    positions: np.ndarray

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        return self.values[self.positions[rows]]


class Blocks:
    """Rows of features in float64. In a run of several processes, all of them call each method together.

    Args:
        layers: one after the other they are the N rows; a block has rows of one of them.

    Attributes:
        count: number of rows N.
        size: number of features F.
    """

    def __init__(self, layers: Sequence[Rows]):
        self.count, self.size = sum(map(len, layers)), layers[0][:1].shape[1]
        self._places = [(rows, first) for rows in layers for first in range(0, len(rows), BLOCK)]
        self._starts = np.cumsum([0, *(min(BLOCK, len(rows) - first) for rows, first in self._places)])
        self._parts = max(1, min(PARTS, len(self._places)))
        self._shared = self.count * self.size >= LEAST_SHARED
        self._own = ranks.share_of(self._parts) if self._shared else range(self._parts)
        own = [number for part in self._own for number in self._numbers(part)]
        self._buffer = torch.empty(min(BLOCK, self.count), self.size, dtype=torch.float64)
        free = available_memory()
        bytes_needed = 8 * self.size * sum(len(range(self.count)[self.positions(number)]) for number in own)
        self._kept: dict[int, torch.Tensor] = {}
        if free is None or bytes_needed <= KEPT_SHARE * free / ranks.count_beside():
            self._kept = {number: self._convert(number).clone() for number in own}

    def positions(self, number: int) -> slice:
        """The rows of a block."""
        return slice(self._starts[number], self._starts[number + 1])

    def sum(
        self, add: Callable[[torch.Tensor, torch.Tensor, slice], None], *shape: int, point: float = 0
    ) -> torch.Tensor:
        """The sum over all blocks of what `add` computes for each, in every process.

        Sums of blocks are added within a part in their order, and those of parts in pairs, as in a binary tree. The
        processes exchange the sums of the largest branches that one process has computed alone.

        Args:
            add: called with a tensor of the shape, to which it adds; the features (B, F) of a block; and its rows.
            shape: of the sum.
            point: where the summed function is evaluated. Processes at different points would add what does not
                belong together.

        Raises:
            InputError: another process is at another point.
            MachineError: another process has ended.
        """

        def compute(first: int, last: int) -> torch.Tensor | None:
            if last - first > 1:
                return None
            found = torch.zeros(shape, dtype=torch.float64)
            for number in self._numbers(first):
                add(found, self._read(number), self.positions(number))
            return found

        if not self._shared:
            return add_in_pairs(0, self._parts, compute)
        owners = ranks.owners_of(self._parts)
        branches = list(_branches(0, self._parts, owners))
        sums = torch.zeros(len(branches), *shape, dtype=torch.float64)
        for place, (first, last) in zip(sums, branches, strict=True):
            if first in self._own:
                place.copy_(add_in_pairs(first, last, compute))
        ranks.add_up(sums, point=point)
        ready = dict(zip(branches, sums, strict=True))
        return add_in_pairs(0, self._parts, lambda first, last: ready.get((first, last)))

    def map(self, function: Callable[[torch.Tensor], torch.Tensor], width: int) -> torch.Tensor:
        """(N, width) what `function` makes of the features (B, F) of each block, in every process."""
        found = torch.zeros(self.count, width, dtype=torch.float64)
        for part in self._own:
            for number in self._numbers(part):
                found[self.positions(number)] = function(self._read(number))
        if self._shared:
            ranks.add_up(found)
        return found

    def _numbers(self, part: int) -> range:
        """The blocks of a part."""
        first, last = (number * len(self._places) // self._parts for number in (part, part + 1))
        return range(first, last)

    def _read(self, number: int) -> torch.Tensor:
        """The features (B, F) of a block, until the next one is read."""
        return self._kept[number] if self._kept else self._convert(number)

    def _convert(self, number: int) -> torch.Tensor:
        rows, first = self._places[number]
        values = rows[first : first + BLOCK]
        found = self._buffer[: len(values)]
        np.copyto(found.numpy(), values)
        return found


def add_in_pairs(first: int, last: int, find: Callable[[int, int], torch.Tensor | None]) -> torch.Tensor:
    """The sum of the parts from `first` to `last` - 1: of the two halves, unless `find` returns it."""
    found = find(first, last)
    if found is not None:
        return found
    middle = (first + last) // 2
    return add_in_pairs(first, middle, find) + add_in_pairs(middle, last, find)


def _branches(first: int, last: int, owners: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The largest branches of the tree of `add_in_pairs` whose parts are all of one owner."""
    if owners[first] == owners[last - 1]:
        yield first, last
    else:
        middle = (first + last) // 2
        yield from _branches(first, middle, owners)
        yield from _branches(middle, last, owners)
