import json

from helpers.image_folders import write_images

BACKBONE = ["--backbone", "test_byobnet", "--backbone_weights", "random"]


def test_a_folder_is_audited(succeeds, tmp_path):
    photos = write_images(tmp_path / "photos")
    said = succeeds("audit.py", photos, *BACKBONE)
    assert "20 images (13 train, 3 validation, 4 test) of 2 classes were looked at." in said
    assert "Page: reports/audit/audit.html" in said
    folder = tmp_path / "reports" / "audit"
    assert {path.name for path in folder.iterdir()} == {"audit.json", "audit.html", "labels.csv"}
    content = json.loads((folder / "audit.json").read_text())
    assert content["summary"]["formats"] == {"PNG": 20}
    assert succeeds("audit.py", "--dataset", photos, "--report_dir", "other", *BACKBONE)
    again = json.loads((tmp_path / "other" / "audit.json").read_text())
    assert [again[key] for key in ("duplicates", "labels")] == [content[key] for key in ("duplicates", "labels")]


def test_invalid_flags_are_one_line_each(fails, tmp_path):
    photos = write_images(tmp_path / "photos")
    assert fails("audit.py", photos, "--dataset", photos) == (
        f"'{photos}' and --dataset '{photos}' both name the images. Leave one of them out."
    )
    message = fails("audit.py", photos, "--report_dir", "photos/report", *BACKBONE)
    assert message.startswith(f"--report_dir 'photos/report' lies inside the dataset '{photos}'.")
    assert fails("audit.py", "nothing/", *BACKBONE).startswith(
        "--dataset 'nothing/' is neither a folder or file nor a hub id"
    )
    message = fails("audit.py", photos, "--backbone", "test_byobnet", "--backbone_weights", "none.pth")
    assert message.startswith("--backbone_weights 'none.pth' is not a file")


def test_an_audit_itself_takes_corrected_labels_and_no_audit(succeeds, fails, tmp_path):
    photos = write_images(tmp_path / "photos")
    (tmp_path / "corrected.csv").write_text("file,label\ncat/001.png,dog\n")
    assert fails("audit.py", photos, "--audit", "reports/audit").startswith("Unknown argument '--audit'.")
    assert fails("audit.py", photos, "--drop_leaks").startswith("Unknown argument '--drop_leaks'.")
    succeeds("audit.py", photos, *BACKBONE, "--labels", tmp_path / "corrected.csv")
    content = json.loads((tmp_path / "reports" / "audit" / "audit.json").read_text())
    assert content["summary"]["classes"] == {"cat": 9, "dog": 11}
    assert content["summary"]["division"].endswith(" 1 label was changed (1 train), as corrected.csv says.")
