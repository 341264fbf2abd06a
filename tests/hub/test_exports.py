import errno
import re
import shutil

import pytest

from helpers.hub_folders import write_text
from hfprobe.hub.exports import export_checksums, publish_export
from hfprobe.hub.local import push_files, resolve_model
from hfprobe.system.errors import InputError, MachineError


@pytest.fixture
def pushed(tmp_path):
    return push_files(write=write_text("{}"), hub_dir=tmp_path / "hub", name="a").path


def export(folder, text="new", *, error=None):
    with publish_export(folder) as staging:
        (staging / "model.onnx").write_text(text)
        (staging / "parity.json").write_text(text)
        if error is not None:
            raise error


def staged(folder):
    return [path for path in folder.parents[2].rglob("*") if path.name.startswith(".export-")]


def test_an_export_is_replaced_as_a_whole_and_the_revision_stays_intact(pushed):
    export(pushed, "old")
    (pushed / "onnx" / "left.onnx").touch()
    export(pushed)
    assert {path.name: path.read_text() for path in (pushed / "onnx").iterdir()} == {
        "model.onnx": "new",
        "parity.json": "new",
    }
    assert resolve_model(model="a", hub_dir=pushed.parents[2]) == pushed
    assert staged(pushed) == []


@pytest.mark.parametrize(
    ("error", "raised"), [(ValueError(), ValueError), (KeyboardInterrupt(), KeyboardInterrupt),
                          (OSError(errno.ENOSPC, "No space left on device"), MachineError)],
)  # fmt: skip
def test_an_export_that_fails_leaves_the_earlier_one(pushed, error, raised):
    export(pushed, "old")
    with pytest.raises(raised):
        export(pushed, error=error)
    assert (pushed / "onnx" / "model.onnx").read_text() == "old"
    assert staged(pushed) == []


def test_what_a_killed_export_leaves_does_not_damage_the_revision_and_is_removed_by_the_next(pushed):
    left = pushed.parents[2] / ".locks" / pushed.parents[1].name / ".export-killed"
    left.mkdir()
    (left / "model.onnx").touch()
    assert resolve_model(model="a", hub_dir=pushed.parents[2]) == pushed
    export(pushed)
    assert staged(pushed) == []


def test_a_model_folder_outside_a_hub_folder_has_its_export_too(tmp_path):
    (tmp_path / "model").mkdir()
    export(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["onnx"]


def test_only_a_folder_may_be_added_to_a_revision(pushed):
    (pushed / "onnx").write_text("a file")
    with pytest.raises(InputError, match=re.escape("'onnx' of hfprobe/a@")):
        resolve_model(model="a", hub_dir=pushed.parents[2])


def test_a_model_folder_that_cannot_be_written_to_is_named_before_anything_is_made(pushed, monkeypatch):
    monkeypatch.setattr("hfprobe.hub.exports.os.access", lambda path, mode: path != pushed)
    with pytest.raises(InputError, match=re.escape(f"'{pushed}' cannot be written to. Make it writable, or copy")):
        export(pushed)
    assert not (pushed / "onnx").exists()


def test_links_are_refused(pushed, tmp_path):
    (tmp_path / "secret").write_text("of someone else")
    (pushed / "onnx").symlink_to(tmp_path)
    with pytest.raises(InputError, match="has a file outside the hub folder"):
        resolve_model(model="a", hub_dir=pushed.parents[2])
    (pushed / "onnx").unlink()
    export(pushed)
    (pushed / "onnx" / "model.onnx").unlink()
    (pushed / "onnx" / "model.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match=re.escape("model.onnx' is a link to '")):
        export_checksums(pushed / "onnx")


def test_an_export_is_copied_with_its_revision(pushed, tmp_path):
    export(pushed)
    shutil.copytree(pushed.parents[2], tmp_path / "copy")
    assert (resolve_model(model="a", hub_dir=tmp_path / "copy") / "onnx" / "model.onnx").read_text() == "new"
