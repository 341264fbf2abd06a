"""The settings of a model that is trained on the answers of another one: knowledge distillation.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. Teacher and student see the same crop of
an image (Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from hfprobe.hub.local import resolve_model
from hfprobe.system.ranges import Range
from hfprobe.system.setting import Case, Setting

NO_TEACHER = Case("only --recipe distill with a --teacher reads it", lambda a: a.teacher is None)


@dataclass(kw_only=True)
class StudentOptions:
    """The flags of a model that can have a teacher; its own flags follow."""

    teacher: str | None = field(
        default=None,
        metadata={
            "help": "With --recipe distill: the model whose probabilities are the targets. A name in the hub folder, "
            "such as linear-probe or linear-probe@<revision>, or a model folder. It must have been trained on the same "
            "labelled images."
        },
    )
    unlabelled: str | None = field(
        default=None,
        metadata={
            "help": "More images for the teacher to label: a folder, a CSV or parquet file, a zip file, a hub id, or a "
            "split of --dataset that has no labels. Training images beyond --max_train_samples are always used.",
            "row": Setting(ignored=(NO_TEACHER,)),
        },
    )
    teacher_views: int = field(
        default=4,
        metadata={
            "help": "Crops of each image that the teacher labels; the student sees them in turn, one per epoch.",
            "row": Setting(range=Range(1, 1000, reason="each is a pass of the teacher"), ignored=(NO_TEACHER,)),
        },
    )
    teacher_temperature: float = field(
        default=1.0,
        metadata={
            "help": "Divides the calibrated logits of the teacher. More than 1: softer targets.",
            "row": Setting(range=Range(0.01, 100), ignored=(NO_TEACHER,)),
        },
    )
    teacher_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight of the teacher in the targets of labelled images; the label has the rest. Set by --recipe "
            "distill.",
            "row": Setting(range=Range(0, 1, without=(0,)), ignored=(NO_TEACHER,)),
        },
    )

    def check_teacher(self) -> None:
        """Raise ValueError if there is a teacher without its recipe, or the recipe without a teacher."""
        if self.teacher is None and self.teacher_weight is not None:
            raise ValueError(
                f"--teacher_weight {self.teacher_weight:g} needs --teacher. Pass a trained model, such as --teacher "
                "linear-probe."
            )
        if self.teacher is not None and self.teacher_weight is None:
            raise ValueError("--teacher needs --recipe distill. Add it, or leave --teacher out.")


Options = TypeVar("Options", bound=Any)


def pin_teacher(options: Options, *, hub_dir: str) -> Options:
    """The options with the revision of the teacher, so that records name it and a resumed run finds the same.

    Raises:
        InputError: there is no such model.
    """
    if not isinstance(options, StudentOptions) or options.teacher is None:
        return options
    folder = resolve_model(model=options.teacher, hub_dir=hub_dir)
    is_folder = os.path.isdir(options.teacher)
    name = os.path.abspath(folder) if is_folder else f"{options.teacher.partition('@')[0]}@{folder.name[:12]}"
    return replace(options, teacher=name)
