"""The flags that choose the images of a run."""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any, Literal

from hfprobe.system.errors import InputError, first_line, shorten
from hfprobe.system.ranges import IMAGES, PIXELS, SEED, Range
from hfprobe.system.setting import AUGMENTATION, Case, Setting, check_ranges, rows_of

# --crop_shift is counted in pixels of an image of this side.
CROP_SIDE = 32
# Images whose shorter side has a median of at most this many pixels are small, as those of CIFAR-10 (32) or MNIST (28).
SMALL_SIDE = 48
LONGEST_NAME = 255  # bytes: the limit of file systems
DEFAULT_DATASET = "uoft-cs/cifar10"
# Begins the name of images that a Python program passed; no hub id begins so. Digits of a hash of them follow.
IN_MEMORY = "memory:"
DEFAULT_CLASSES = ["airplane", "automobile", "bird", "cat", "dog"]

NOT_AUGMENTED = Case("--augment false turns crops and flips off", lambda a: not a.augment)
UNSETTLED = Case("without --crop, the images decide on crops", lambda a: a.crop is None)
NOT_SHIFTED = (Case("--crop resized does not shift the image", lambda a: a.crop == "resized"), UNSETTLED)


def same_dataset(one: str, other: str) -> bool:
    """Whether two values of `--dataset` name one dataset: `photos`, `photos/` and its absolute path do."""
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def is_moved(dataset: str, recorded: str) -> bool:
    """Whether a local dataset that a record names is gone, and this one has its name."""
    names = [os.path.basename(os.path.abspath(place)) for place in (dataset, recorded)]
    return os.path.isabs(recorded) and not os.path.exists(recorded) and names[0] == names[1]


@dataclass
class DataArguments:
    """Which images, which classes, how many, and how they are augmented."""

    dataset: str = field(
        default=DEFAULT_DATASET,
        metadata={
            "help": "Hub id, or local folder or file: one folder per class, with or without train/ and test/ above "
            "them; a CSV file; parquet files; tar shards; save_to_disk; a zip file of any of these.",
            "row": Setting(may_differ="the folder may have been moved; the images themselves are compared"),
        },
    )
    dataset_config: str | None = field(
        default=None,
        metadata={"help": "Configuration of a hub dataset that has several.", "row": Setting(identity=True)},
    )
    train_split: str | None = field(
        default=None,
        metadata={
            "help": "Name of the training split in the dataset. Default: train or training, alone or as in train_set.",
            "row": Setting(identity=True),
        },
    )
    validation_split: str | None = field(
        default=None,
        metadata={
            "help": "Name of the validation split in the dataset. Default: val, valid, validation or dev, alone or "
            "as in val_set; without it, a fifth of the training images is drawn.",
            "row": Setting(identity=True),
        },
    )
    test_split: str | None = field(
        default=None,
        metadata={
            "help": "Name of the test split in the dataset. Default: test or testing, alone or as in "
            "test_set; without it, a fifth of the training images is drawn.",
            "row": Setting(identity=True),
        },
    )
    image_column: str | None = field(
        default=None,
        metadata={
            "help": "Column with the images or their files. Default: image, img, file_name, ...",
            "row": Setting(identity=True),
        },
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Column with the classes. Default: label, labels, class, ...", "row": Setting(identity=True)},
    )
    split_column: str | None = field(
        default=None,
        metadata={
            "help": "Column that divides the rows of a table into splits. Default: one whose values are all names of "
            "splits, or columns such as is_valid and is_test with yes and no.",
            "row": Setting(identity=True),
        },
    )
    group_column: str | None = field(
        default=None,
        metadata={
            "help": "Column whose value is the same for images that belong together (one patient, one burst, one "
            "video). They are kept in one split.",
            "row": Setting(identity=True),
        },
    )
    group_by: Literal["folder", "prefix"] | None = field(
        default=None,
        metadata={
            "help": "Keep images in one split that share a folder below the class folder, or the file name before the "
            "number at its end (prefix: clip3_0004.png and clip3frame5.png are of clip3).",
            "row": Setting(identity=True),
        },
    )
    group_regex: str | None = field(
        default=None,
        metadata={
            "help": "Regular expression that finds, in the path of an image below the dataset folder, what images that "
            "belong together share: its first group, or all that it matches if it has none, such as '/(clip[0-9]+)'. "
            "They are kept in one split.",
            "row": Setting(identity=True),
        },
    )
    classes: list[str] | None = field(
        default=None,
        metadata={
            "help": "Classes to keep. Their order defines the label numbers. Default: all; of CIFAR-10, "
            f"{', '.join(DEFAULT_CLASSES)}."
        },
    )
    audit: str | None = field(
        default=None,
        metadata={
            "help": "Folder of an audit of the same images, which hfprobe audit wrote. Splits that are drawn keep its "
            "groups of duplicates together; splits that the dataset has are not changed.",
            "row": Setting(identity=True),
        },
    )
    drop_leaks: bool = field(
        default=False,
        metadata={
            "help": "Leave out training images that have a duplicate in validation or test, and validation images that "
            "have one in test, as --audit says.",
            "row": Setting(identity=True),
        },
    )
    labels: str | None = field(
        default=None,
        metadata={
            "help": "Table of corrected labels, such as the labels.csv of an audit: columns label and file, or "
            "label, split and row. An empty label or ? leaves the image out.",
            "row": Setting(identity=True),
        },
    )
    skip_unreadable: bool = field(
        default=False,
        metadata={
            "help": "Leave out images that cannot be read, instead of refusing the dataset.",
            "row": Setting(identity=True),
        },
    )
    max_pixels: int | None = field(
        default=None,
        metadata={
            "help": "Read images of at most this many pixels, each of which takes 4 bytes of memory; larger images "
            "count as unreadable. Default: 178,956,970, the limit of Pillow.",
            "row": Setting(range=PIXELS, identity=True),
        },
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={
            "help": "Train on at most this many images, stratified by class. Default: all.",
            "row": Setting(range=IMAGES),
        },
    )
    max_eval_samples: int | None = field(
        default=None,
        metadata={
            "help": "Validate on at most this many images, stratified by class. Default: all.",
            "row": Setting(range=IMAGES),
        },
    )
    split_seed: int | None = field(
        default=None,
        metadata={
            "help": "Seed of the split into train and validation and of the subsets. Default: --seed.",
            "row": Setting(range=SEED),
        },
    )
    augment: bool = field(
        default=True,
        metadata={
            "help": "Use random crops and mirror images in training.",
            "row": Setting(group=AUGMENTATION, on_card=True),
        },
    )
    crop: Literal["shift", "resized"] | None = field(
        default=None,
        metadata={
            "help": "Random crops. shift: the image is shifted; resized: a part of random size and position is scaled "
            "to the size of the image. Default: shift if the shorter side of the training images has a median of at "
            f"most {SMALL_SIDE} pixels, or if --crop_shift or --crop_padding is passed; otherwise resized.",
            "row": Setting(group=AUGMENTATION, on_card=True, ignored=(NOT_AUGMENTED, UNSETTLED)),
        },
    )
    crop_shift: int = field(
        default=4,
        metadata={
            "help": "Maximum shift of random crops in pixels, 0 to 31, for images of 32 x 32. It is scaled in "
            "proportion for other sizes.",
            "row": Setting(
                range=Range(0, CROP_SIDE - 1), group=AUGMENTATION, on_card=True, ignored=(NOT_AUGMENTED, *NOT_SHIFTED)
            ),
        },
    )
    crop_padding: Literal["black", "reflect"] = field(
        default="black",
        metadata={
            "help": "How random crops fill the area outside the image: black pixels or a reflection.",
            "row": Setting(
                group=AUGMENTATION,
                on_card=True,
                ignored=(
                    NOT_AUGMENTED,
                    *NOT_SHIFTED,
                    Case("with --crop_shift 0, crops stay inside the image", lambda a: a.crop_shift == 0),
                ),
            ),
        },
    )
    flips: Literal["random", "alternating"] = field(
        default="random",
        metadata={
            "help": "Mirror images: sampled in each epoch, or sampled once, then inverted every epoch.",
            "row": Setting(group=AUGMENTATION, on_card=True, ignored=(NOT_AUGMENTED,)),
        },
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if any(len(part.encode(errors="replace")) > LONGEST_NAME for part in self.dataset.split("/")):
            raise InputError(
                f"--dataset '{shorten(self.dataset)}' contains a name of more than {LONGEST_NAME} bytes; allowed: at "
                f"most {LONGEST_NAME} bytes. Pass the folder or the hub id of a dataset."
            )
        given = [name for name in (self.train_split, self.validation_split, self.test_split) if name is not None]
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise InputError(f"Two flags name the split {shorten(twice[0])}; allowed: each split once.")
        grouping = [
            f"--{name}" for name in ("group_column", "group_by", "group_regex") if getattr(self, name) is not None
        ]
        if len(grouping) > 1:
            raise InputError(
                f"{grouping[0]} and {grouping[1]} both say which images belong together. Leave one of them out."
            )
        self._check_group_regex()
        if self.drop_leaks and self.audit is None:
            raise InputError(
                "--drop_leaks needs --audit, which names the duplicates. Pass the folder that hfprobe audit wrote."
            )
        # Absolute, so that records name the same file from every folder.
        self.audit, self.labels = (name and os.path.abspath(name) for name in (self.audit, self.labels))
        if self.classes is None:
            # Of another dataset, the classes are known once it is loaded.
            self.classes = list(DEFAULT_CLASSES) if self.dataset == DEFAULT_DATASET else None
            return
        self.classes = [unicodedata.normalize("NFC", name) for name in self.classes]  # as sources do
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise InputError(f"--classes names {shorten(', '.join(twice))} twice; allowed: each class once.")
        if len(self.classes) < 2:
            only = f"only {shorten(self.classes[0])}" if self.classes else "none"
            raise InputError(f"--classes names {only}; allowed: two classes or more.")

    def _check_group_regex(self) -> None:
        if self.group_regex is None:
            return
        try:
            empty = re.compile(self.group_regex).fullmatch("")
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(
                f"--group_regex '{shorten(self.group_regex)}' is not a regular expression: {first_line(error)}. "
                "Allowed: those of Python's module re."
            ) from error
        if empty:
            raise InputError(
                f"--group_regex '{shorten(self.group_regex)}' matches an empty text, so it names no group. Pass an "
                "expression that matches a part of the paths, such as '/(clip[0-9]+)'."
            )

    @property
    def recorded_dataset(self) -> str:
        """The dataset as records name it: the absolute path of a local one, which is the same from every folder."""
        return os.path.abspath(self.dataset) if os.path.exists(self.dataset) else self.dataset

    @property
    def by_number(self) -> bool:
        """Whether an image is told by its row number: the copies of the default dataset encode the same pixels in
        different ways."""
        return self.dataset == DEFAULT_DATASET

    def identity(self) -> dict[str, Any]:
        """The settings beside the dataset that an evaluation needs to find the same images, as far as they are set."""
        return {name: value for name in IDENTITY if (value := getattr(self, name))}

    @property
    def augmentation(self) -> dict[str, Any] | None:
        """Keyword arguments of `hfprobe.data.pixels.transforms.crop_and_flip`; None without augmentation."""
        crop = self.crop or "shift"
        values = {"crop": crop, "shift": self.crop_shift, "padding": self.crop_padding, "flips": self.flips}
        return values if self.augment else None


# Settings that, beside the dataset and its classes, say which images these are.
IDENTITY = tuple(name for name, row in rows_of(DataArguments).items() if row.identity)
