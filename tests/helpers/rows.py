"""Rows with paths of image files that do not exist, for what reads labels and names only."""

import datasets
import numpy as np


def make_rows(labels, *, paths=None, groups=None):
    names = [f"class{number}" for number in range(max(labels) + 1)]
    features = datasets.Features(image=datasets.Image(decode=False), label=datasets.ClassLabel(names=names))
    paths = paths or [f"photos/class{label}/{number}.jpg" for number, label in enumerate(labels)]
    content = {"image": [{"path": path, "bytes": None} for path in paths], "label": labels}
    rows = datasets.Dataset.from_dict(content, features=features).add_column("index", np.arange(len(labels)))
    return rows if groups is None else rows.add_column("group", groups)
