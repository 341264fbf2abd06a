import csv
from dataclasses import replace
from io import BytesIO

import PIL.Image

from helpers.audited import make_audit
from helpers.pages import Page, section_of
from hfprobe.tasks.audit.page import save_audit


def thumbnail():
    buffer = BytesIO()
    PIL.Image.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_page_needs_no_other_file_and_shows_duplicates_side_by_side(tmp_path):
    path = save_audit(make_audit(thumbnail=thumbnail()), tmp_path / "out")
    assert {file.name for file in path.parent.iterdir()} == {"audit.json", "audit.html", "labels.csv"}
    page = Page(path.read_text())
    sources = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    section = section_of(path, "duplicates")
    assert section.count("<img") == 5
    assert section.count('<li class="leak">') == 1
    assert "the same pixels" in section
    assert "near, correlation 0.91" in section


def test_a_suspect_label_is_a_question(tmp_path):
    section = section_of(save_audit(make_audit(thumbnail=thumbnail()), tmp_path), "labels")
    assert "Is this label correct?" in section
    assert "given: <strong><bdi>cat</bdi></strong>" in section
    assert "the probe says <strong><bdi>dog</bdi></strong>, 98" in section


def test_a_page_of_nothing_has_no_empty_sections(tmp_path):
    audit = replace(make_audit(), duplicates=[], labels=[], outliers=[], samples={})
    text = save_audit(audit, tmp_path).read_text()
    assert "No duplicates were found." in text
    assert not [name for name in ("duplicates", "labels", "outliers", "sheet") if f'id="{name}"' in text]


def test_the_table_repeats_the_label_for_a_person_to_correct(tmp_path):
    save_audit(make_audit(names=["=cat", "dog"]), tmp_path)
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0] == {
        "split": "train", "row": "5", "file": "train/005.png", "label": "'=cat", "given": "'=cat", "suggested": "dog",
        "probability_given": "0.01", "probability_suggested": "0.98",
    }  # fmt: skip
