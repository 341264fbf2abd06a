"""Compare one epoch of SimpleCNN in hfprobe's Trainer with a plain PyTorch loop with the same kernels and batches.

python benchmarks/train_step.py        # four minutes on two CPU cores
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from side_by_side import describe_machine, describe_ratio, draw_split, make_parser, measure

from hfprobe.data.pixels.store import ImageSplit
from hfprobe.data.splits.decoded import Splits
from hfprobe.models import build_model, find_family
from hfprobe.settings.run_config import make_run
from hfprobe.system.machine import keep_freed_memory, quiet_libraries, use_every_core
from hfprobe.training.assembly import build_trainer, settle
from hfprobe.training.callbacks import EpochLines
from hfprobe.training.trainer import ProbeTrainer

LABELS = list("abcde")
ADAMW = {
    "recipe": "reference", "optimizer": "optim", "learning_rate": 1e-3, "lr_scheduler_type": "constant",
    "lr_scheduler_kwargs": None, "num_train_epochs": 1,
}  # fmt: skip


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, default=2560)
    arguments = parser.parse_args()
    quiet_libraries()
    use_every_core()
    keep_freed_memory()
    split = draw_split(arguments.images, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(split, folder=folder)
        ways = {"bare loop": bare_loop(trainer), "Trainer": trainer.train}
        seconds = measure(ways, rounds=arguments.rounds)
    print(f"\nSimpleCNN, {arguments.images} images, batches of 128; {describe_machine()}")
    print(f"Trainer / bare loop, speed: {describe_ratio(seconds['bare loop'], seconds['Trainer'])}")
    print(f"images/s of the Trainer: {arguments.images / np.median(seconds['Trainer']):.0f}")


def make_trainer(split: ImageSplit, *, folder: str, **settings: Any) -> ProbeTrainer:
    """hfprobe's Trainer without evaluations and checkpoints.

    Args:
        settings: of the run; by default, one epoch of AdamW at a constant learning rate.
    """
    config = make_run(
        **settings or ADAMW,
        output_dir=folder,
        classes=LABELS,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        report_to="none",
        disable_tqdm=True,
    )
    model, processor = build_model("cnn", labels=LABELS, options=config.model)
    few = draw_split(100, seed=1)
    splits = Splits(train=split, validation=few, test=few, class_names=LABELS, source="generated")
    config = settle(config, splits)
    trainer = build_trainer(config=config, model=model, processor=processor, splits=splits)
    trainer.remove_callback(EpochLines)
    return trainer


def bare_loop(trainer: ProbeTrainer):
    """The same epoch without a Trainer: the same batches, in a new model with the same architecture."""
    device, size = trainer.args.device, trainer.args.per_device_train_batch_size
    model = build_model("cnn", labels=LABELS, options=find_family("cnn").recipe_options())[0].to(
        device, memory_format=torch.channels_last
    )

    def run() -> None:
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        order = np.random.default_rng(0).permutation(len(trainer.train_dataset))
        for first in range(0, len(order), size):
            batch = trainer.train_dataset.__getitems__(order[first : first + size])
            optimizer.zero_grad()
            model(**{name: value.to(device) for name, value in batch.items()}).loss.backward()
            optimizer.step()

    return run


if __name__ == "__main__":
    main()
