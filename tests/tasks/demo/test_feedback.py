import csv
from io import BytesIO

import PIL.Image
import pytest

from helpers.image_kinds import KINDS
from helpers.images import draw_images
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images
from hfprobe.tasks.demo.feedback import ENDINGS, Feedback


def png(image):
    buffer = BytesIO()
    PIL.Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def rows_of(folder):
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))


def test_each_picture_has_one_row_and_the_last_label_counts(tmp_path):
    feedback = Feedback(tmp_path / "new" / "kept")
    first, second = (KINDS[kind](30, 20)[0] for kind in ("RGB PNG", "RGB JPEG"))
    names = [
        feedback.keep(content, label=label) for content, label in ((first, "cat"), (second, "dog"), (first, "dog"))
    ]
    assert names[0] == names[2] != names[1]
    assert rows_of(feedback.folder) == [["file", "label"], [names[1], "dog"], [names[0], "dog"]]
    assert {path.name for path in feedback.folder.iterdir()} == {*names[:2], "labels.csv"}
    assert (feedback.folder / names[0]).read_bytes() == first


@pytest.mark.parametrize("kind", KINDS)
def test_the_ending_follows_the_content(tmp_path, kind):
    name = Feedback(tmp_path).keep(KINDS[kind](30, 20)[0], label="cat")
    assert name.rpartition(".")[2] in ENDINGS.values()


def test_the_folder_is_a_dataset_and_its_table_is_one_of_labels(tmp_path):
    feedback = Feedback(tmp_path / "kept")
    images, labels = draw_images(20, classes=2)
    for image, label in zip(images, labels, strict=True):
        feedback.keep(png(image), label=["cat", "dog"][label])
    table = str(feedback.folder / "labels.csv")
    found = load_images(DataArguments(dataset=str(feedback.folder)), seed=0)
    assert found.class_names == ["cat", "dog"]
    assert sum(len(rows) for rows in found.parts.values()) == 20
    assert load_images(DataArguments(dataset=str(feedback.folder), labels=table), seed=0).class_names == ["cat", "dog"]


def test_a_class_that_a_spreadsheet_would_run_is_escaped_as_labels_reads_it(tmp_path):
    feedback = Feedback(tmp_path)
    name = feedback.keep(KINDS["RGB PNG"](30, 20)[0], label="=1+1")
    assert rows_of(tmp_path)[1] == [name, "'=1+1"]


def test_a_folder_that_cannot_be_written_keeps_its_table(tmp_path):
    (tmp_path / "kept").write_text("a file")
    with pytest.raises(OSError, match="File exists"):
        Feedback(tmp_path / "kept").keep(KINDS["RGB PNG"](30, 20)[0], label="cat")
    assert (tmp_path / "kept").read_text() == "a file"
