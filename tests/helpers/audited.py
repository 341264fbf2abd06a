"""Images of textures in two classes, with planted faults, for tests of the audit."""

from dataclasses import replace

import datasets
import numpy as np
import PIL.Image

from hfprobe.data.splits.audited import Duplicates, ImageKey
from hfprobe.data.splits.parts import SplitContent
from hfprobe.system.provenance import Hardware
from hfprobe.tasks.audit.parts import PartSummary
from hfprobe.tasks.audit.result import (
    Audit,
    Outlier,
    Provenance,
    Sizes,
    Summary,
    SuspectLabel,
)

NAMES = ["cat", "dog"]


def draw_textures(count, *, side=48, seed=0, label=0):
    """(count, side, side, 3) uint8: spots of random sizes; the blue channel says the class."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        coarse = PIL.Image.fromarray(generator.integers(0, 255, (7, 7, 3), dtype=np.uint8)).resize((side, side), 3)
        fine = PIL.Image.fromarray(generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)).resize((side, side), 3)
        image = (np.asarray(coarse, dtype=float) + np.asarray(fine)) / 2
        image[..., 2] = image[..., 2] / 4 + 180 * label
        found.append(image.astype(np.uint8))
    return np.stack(found)


def textures(*, train=24, test=12):
    """Split -> (images, labels), half of them of each class."""
    found = {}
    for seed, (split, count) in enumerate({"train": train, "test": test}.items()):
        halves = [draw_textures(count // 2, seed=10 * seed + label, label=label) for label in (0, 1)]
        found[split] = (list(np.concatenate(halves)), [0] * (count // 2) + [1] * (count // 2))
    return found


def as_dataset(splits):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=NAMES))
    made = {
        split: datasets.Dataset.from_dict(
            {"image": [PIL.Image.fromarray(np.asarray(image)) for image in images], "label": labels}, features=features
        )
        for split, (images, labels) in splits.items()
    }
    return datasets.DatasetDict(made)


def make_audit(*, names=NAMES, file="{}/{:03}.png", thumbnail=b""):
    """An audit with everything that a page can show: test row 0 has copies in train, rows 3 and 4 repeat each other."""

    def key(split, row):
        return ImageKey(split, row, file and file.format(split, row))

    measures = {"dark": 3.5, "bright": 250.0, "blurred": 0.4, "small": 64.0, "large": 1e6, "elongated": 9.0}
    audit = Audit(
        summary=Summary(
            source="local folder photos",
            classes=dict.fromkeys(names, 20),
            parts={
                "train": PartSummary("train", 24, 23, {"train": 2, "validation": 0, "test": 2}, [1, 2]),
                "validation": PartSummary("train", 6, 6, {"train": 0, "validation": 0, "test": 0}, []),
                "test": PartSummary("test", 10, 9, {"train": 1, "validation": 0, "test": 2}, [0, 3, 4]),
            },
            formats={"PNG": 38, "JPEG": 2},
            modes={"RGB": 40},
            sizes=Sizes((8, 8), (1000, 1000), 48.0),
            division="The test images are those of the dataset.",
            left_out={"not an image": ["notes.txt"]},
            unreadable=["image 7 of split 'train' (photos/cat/7.png) cannot be read: not an image"],
        ),
        duplicates=[
            Duplicates("near", [key("train", 1), key("train", 2), key("test", 0)], 0.91),
            Duplicates("exact", [key("test", 3), key("test", 4)], 1.0),
        ],
        labels=[
            SuspectLabel(*vars(key("train", 5)).values(), names[0], names[-1], 0.01, 0.98),
            SuspectLabel(*vars(key("test", 6)).values(), names[-1], names[0], 0.3, 0.6),
        ],
        outliers=[Outlier(*vars(key("train", 9)).values(), measure, value) for measure, value in measures.items()],
        provenance=Provenance(
            dataset="/home/someone/photos",
            splits={"train": SplitContent(30, "0" * 32), "test": SplitContent(10, "1" * 32)},
            data_fingerprint="0" * 64,
            backbone={"backbone": "test_byobnet", "backbone_weights": "random", "backbone_sha256": "0" * 64},
            seed=42,
            folds=5,
            seconds={"features": 12.0},
            hardware=Hardware("a processor", 2, 2),
            versions={"hfprobe": "0.1.0"},
        ),
        samples={name: [("train", number) for number in range(4)] for name in names},
    )
    shown = [("train", row) for row in range(10)] + [("test", row) for row in range(10)]
    return audit if not thumbnail else Audit(**vars(audit) | {"thumbnails": dict.fromkeys(shown, thumbnail)})


def save_audit(folder, images, *groups):
    """An audit of these images that found these groups of (split, row); returns its folder as text."""
    audit = make_audit()
    found = [Duplicates("near", [ImageKey(*key, None) for key in group], 0.9) for group in groups]
    provenance = replace(audit.provenance, splits=images.contents)
    folder.mkdir(exist_ok=True)
    replace(audit, duplicates=found, provenance=provenance).save(folder)
    return str(folder)
