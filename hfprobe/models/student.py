"""The settings of a model that is trained on the answers of another one: knowledge distillation.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015. With `teacher_sees="crop"`, teacher and
student see the same crop of an image (Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
CVPR 2022).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from hfprobe.hub.local import resolve_model
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.process import command
from hfprobe.system.ranges import Range
from hfprobe.system.setting import Case, Setting

NONE, AUTO = "none", "auto"  # values of --teacher that are no model
NO_TEACHER = Case("there is no --teacher", lambda a: a.teacher == NONE)
WHOLE_IMAGES = Case("--teacher_sees image labels no crops", lambda a: a.teacher_sees == "image")


@dataclass(kw_only=True)
class StudentOptions:
    """The flags of a model that can have a teacher; its own flags follow."""

    teacher: str = field(
        metadata={
            "help": "Model whose probabilities are the targets: a name in the hub folder, such as linear-probe or "
            "linear-probe@<revision>, or a model folder. It must have been trained on the same labelled images. auto: "
            "the linear probe of the same dataset in the hub folder. none: no teacher."
        },
    )
    unlabelled: str | None = field(
        default=None,
        metadata={
            "help": "More images for the teacher to label: a folder, a CSV or parquet file, an archive, a hub id, or a "
            "split of --dataset that has no labels. Training images beyond --max_train_samples are always used.",
            "row": Setting(ignored=(NO_TEACHER,)),
        },
    )
    teacher_sees: Literal["image", "crop"] = field(
        default="image",
        metadata={
            "help": "What the teacher labels. image: each image once, whatever crop of it the student sees; crop: the "
            "crops that the student sees, of which there is then a fixed number, see --teacher_views.",
            "row": Setting(ignored=(NO_TEACHER,)),
        },
    )
    teacher_views: int = field(
        default=4,
        metadata={
            "help": "Crops of each image that the teacher labels; the student sees them in turn, one per epoch.",
            "row": Setting(
                range=Range(1, 1000, reason="each is a pass of the teacher"), ignored=(NO_TEACHER, WHOLE_IMAGES)
            ),
        },
    )
    teacher_temperature: float = field(
        default=1.0,
        metadata={
            "help": "Divides the calibrated logits of the teacher. More than 1: softer targets.",
            "row": Setting(range=Range(0.01, 100), ignored=(NO_TEACHER,)),
        },
    )
    teacher_weight: float = field(
        default=1.0,
        metadata={
            "help": "Weight of the teacher in the targets of labelled images; the label has the rest.",
            "row": Setting(range=Range(0, 1), ignored=(NO_TEACHER,)),
        },
    )

    @property
    def has_teacher(self) -> bool:
        return self.teacher != NONE


Options = TypeVar("Options", bound=Any)


def pin_teacher(options: Options, *, hub_dir: str, probe: str) -> Options:
    """The options with the revision of the teacher, so that records name it and a resumed run finds the same.

    The path of unlabelled images becomes absolute, because records are read from other folders too.

    Args:
        probe: the name that AUTO stands for.

    Raises:
        InputError: there is no such model.
    """
    if not isinstance(options, StudentOptions) or not options.has_teacher:
        return options
    name = probe if options.teacher == AUTO else options.teacher
    try:
        folder = resolve_model(model=name, hub_dir=hub_dir)
    except InputError as error:
        if options.teacher != AUTO:
            raise InputError(f"--teacher: {error}") from error
        raise InputError(
            f"--teacher auto: the hub folder '{hub_dir}' has no model '{shorten(name)}'. Train it first: "
            f"{command('train')} --model probe with the same data settings. Or pass another model as --teacher."
        ) from error
    pinned = os.path.abspath(folder) if os.path.isdir(name) else f"{name.partition('@')[0]}@{folder.name[:12]}"
    place = options.unlabelled
    place = os.path.abspath(place) if place is not None and os.path.exists(place) else place
    return replace(options, teacher=pinned, unlabelled=place)
