"""Write an audit: its JSON, the suspect labels as a table, and a page with the images."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import PIL.Image

from hfprobe.data.splits.audited import ImageKey
from hfprobe.pages.environment import make_environment
from hfprobe.pages.figures import data_uri
from hfprobe.system.files import replace_together
from hfprobe.system.formulas import guard
from hfprobe.tasks.audit.result import (
    MOST_GROUPS,
    MOST_LABELS,
    MOST_OUTLIERS,
    Audit,
    Outlier,
    SuspectLabel,
    choose_shown,
    outliers_by_measure,
    part_of_each,
)

LABELS_FILE, PAGE_FILE = "labels.csv", "audit.html"
COLUMNS = (
    *("split", "row", "file", "label", "given", "suggested"),
    *("probability_given", "probability_suggested"),
)
# What the page says of each measure, and how it writes a value.
MEASURES = {
    "dark": ("Darkest", "mean grey level {:.0f} of 255"),
    "bright": ("Brightest", "mean grey level {:.0f} of 255"),
    "blurred": ("Least sharp", "sharpness {:.1f}"),
    "small": ("Smallest", "{:,.0f} pixels"),
    "large": ("Largest", "{:,.0f} pixels"),
    "elongated": ("Most elongated", "longer side {:.1f} times the shorter one"),
}


@dataclass(frozen=True)
class ShownImage:
    """An image on the page; `image` is a data URI, or None if the audit has no thumbnail of it."""

    name: str
    image: str | None
    width: int = 0
    height: int = 0


def save_audit(audit: Audit, folder: str | Path) -> Path:
    """Write audit.json, labels.csv and audit.html into `folder`, all of them or none.

    Returns:
        The path of audit.html.

    Raises:
        MachineError: the disk is full. What the folder contained before is intact.
    """
    folder = Path(folder)
    with replace_together(folder, last=Audit.FILE) as staging:
        audit.save(staging)
        write_labels(staging / LABELS_FILE, audit.labels)
        (staging / PAGE_FILE).write_text(render_page(audit), encoding="utf-8")
    return folder / PAGE_FILE


def write_labels(path: Path, labels: list[SuspectLabel]) -> None:
    """Write one row per suspect label, the most suspect first.

    The column `label` repeats the given class: a person who answers the question changes it there. An apostrophe is
    added in front of a text that a spreadsheet would run as a formula, see docs/reports.md.
    """
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for item in labels:
            texts = [item.split, str(item.row), item.file or "", item.given, item.given, item.suggested]
            writer.writerow([*map(guard, texts), item.probability_given, item.probability_suggested])


def render_page(audit: Audit) -> str:
    """The page as HTML that needs no other file."""
    owners = part_of_each(audit)
    groups = [
        {
            "group": group,
            "parts": list(dict.fromkeys(owners.get((image.split, image.row), image.split) for image in group.images)),
            "images": [
                (_show(audit, image), owners.get((image.split, image.row), image.split))
                for image in choose_shown(group.images, owners)
            ],
        }
        for group in audit.duplicates[:MOST_GROUPS]
    ]
    outliers = {
        measure: [(_show(audit, item), MEASURES[measure][1].format(item.value)) for item in items[:MOST_OUTLIERS]]
        for measure, items in outliers_by_measure(audit).items()
    }
    samples = {
        name: [_show(audit, ImageKey(split, row, None)) for split, row in keys]
        for name, keys in audit.samples.items()
        if keys
    }
    return (
        make_environment(__file__, markdown=False)
        .get_template("audit.html.j2")
        .render(
            audit=audit,
            summary=audit.summary,
            provenance=audit.provenance,
            total=sum(part.images for part in audit.summary.parts.values()),
            groups=groups,
            labels=[(_show(audit, item), item) for item in audit.labels[:MOST_LABELS]],
            outliers=outliers,
            counts={measure: len(items) for measure, items in outliers_by_measure(audit).items()},
            titles={measure: title for measure, (title, _) in MEASURES.items()},
            samples=samples,
            labels_file=LABELS_FILE,
        )
    )


def _show(audit: Audit, item: ImageKey | SuspectLabel | Outlier) -> ShownImage:
    name = item.file or f"{item.split} {item.row}"
    content = audit.thumbnails.get((item.split, item.row))
    if content is None:
        return ShownImage(name, None)
    with PIL.Image.open(BytesIO(content)) as image:
        width, height = image.size
        kind = (image.format or "png").lower()
    return ShownImage(name, data_uri(content, kind), width, height)
