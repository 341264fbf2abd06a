"""Loaders with persistent workers: the random numbers of a run do not depend on them, and they end with it."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader


class PersistentLoader(DataLoader[Any]):
    """A DataLoader with persistent workers that draws from the global generator as one without them does.

    torch draws a base seed at each iteration, but with persistent workers only at the first one in a process. The same
    generator draws dropout, so the weights would depend on the kind of worker and on where a run was resumed.
    """

    _iterator: Any

    def __iter__(self) -> Any:
        torch.empty((), dtype=torch.int64).random_()
        return super().__iter__()

    def close(self) -> None:
        """End the workers. At the end of the process Python would terminate them, and torch report them as killed."""
        if self._iterator is not None:
            self._iterator._shutdown_workers()
            self._iterator = None


def make_persistent(loader: Any, *, seed: int) -> PersistentLoader:
    """Turn the DataLoader inside a loader of accelerate into a PersistentLoader, and return it.

    Args:
        seed: of the generator of its base seeds, on which no image depends.
    """
    base = loader.base_dataloader
    base.__class__ = PersistentLoader  # accelerate makes the object itself
    base.generator = torch.Generator().manual_seed(seed)
    return base
