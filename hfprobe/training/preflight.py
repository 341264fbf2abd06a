"""Too little disk or memory for a run: found before it starts, and reported together."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from hfprobe.system.machine import available_memory

# AdamW keeps two moments of each weight beside the weight itself.
COPIES_A_CHECKPOINT = 3


def find_shortages(
    *, parameters: int, output_dir: Path, kept: int | None, epochs: float, memory: int, memory_remedy: str
) -> list[str]:
    """What the machine lacks for a run, each with its remedy.

    Args:
        parameters: number of trainable parameters.
        kept: number of checkpoints that are kept (`save_total_limit`); None: one per epoch.
        memory: bytes that fitting needs beside the model.
        memory_remedy: what to pass where they are not free.
    """
    problems = []
    # One more than is kept: the new one is saved before an old one is deleted. A resumed run has some already.
    count = (math.ceil(epochs) if kept is None else kept) + 1 - len(list(output_dir.glob("checkpoint-*")))
    wanted = count * COPIES_A_CHECKPOINT * 4 * parameters / 1e6
    nearest = next(path for path in [output_dir, *output_dir.absolute().parents] if path.exists())
    free = shutil.disk_usage(nearest).free / 1e6
    if wanted > free:
        problems.append(
            f"Checkpoints need {wanted:,.0f} MB in '{output_dir}' ({count} of {wanted / count:,.0f} MB), and "
            f"{free:,.0f} MB are free. Free some, or pass another --output_dir or a smaller --save_total_limit."
        )
    available = available_memory()
    if available is not None and memory > available:
        problems.append(
            f"Fitting the model needs {memory / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are free. Free "
            f"some, or pass {memory_remedy}."
        )
    return problems
