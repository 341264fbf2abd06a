import errno
import re
import shutil
import subprocess

import pytest

from helpers.hub_folders import copy_without_links, write_text
from hfprobe.hub import local as hub
from hfprobe.system.errors import InputError


def test_error_for_a_damaged_revision_names_the_file(tmp_path):
    revision = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    hub.check_revision(revision)
    (revision.path / "config.json").resolve().write_text("[]")
    with pytest.raises(InputError, match=re.escape(f"'config.json' of hfprobe/m@{revision.commit[:12]} is damaged: ")):
        hub.check_revision(revision)
    # What the message advises helps, although the new revision shares the damaged file.
    hub.check_revision(hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m"))


def test_error_for_an_added_file_names_it(tmp_path):
    revision = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    (revision.path / "added.py").write_text("print()")
    with pytest.raises(InputError, match=re.escape("'added.py' of hfprobe/m@")):
        hub.check_revision(revision)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("change", ["older weights", "exchanged", "missing", "added"])
def test_revision_with_changed_missing_or_added_files_is_damaged(tmp_path, change, copied):
    def write(folder, text):
        for name in ("config.json", "a.json"):
            (folder / name).write_text(name + text)

    older, newer = (
        hub.push_files(write=lambda folder, text=text: write(folder, text), hub_dir=tmp_path / "hub", name="m")
        for text in "12"
    )
    hub_dir = tmp_path / "hub"
    if copied:
        copy_without_links(hub_dir, tmp_path / "copy")
        hub_dir = tmp_path / "copy"
    hub.resolve_model(model="m", hub_dir=hub_dir)
    older, newer = (hub_dir / revision.path.relative_to(tmp_path / "hub") for revision in (older, newer))
    file, other = newer / "config.json", newer / "a.json"
    if change == "older weights":
        file.unlink()
        shutil.copyfile(older / "config.json", file)
    elif change == "exchanged":
        for source, target in ((file, newer / "x"), (other, file), (newer / "x", other)):
            source.rename(target)
    elif change == "missing":
        file.unlink()
    else:
        shutil.copyfile(other, newer / "b.json")
    named = {"exchanged": "a.json", "added": "b.json"}.get(change, "config.json")
    with pytest.raises(InputError, match=re.escape(f"'{named}' of hfprobe/m@{newer.name[:12]} is damaged: ")):
        hub.resolve_model(model="m", hub_dir=hub_dir)
    assert hub.resolve_model(model=f"m@{older.name}", hub_dir=hub_dir) == older


@pytest.mark.parametrize("sums", ["none", "not text", "a folder", "other text"])
def test_a_revision_without_its_checksums_is_not_loaded(tmp_path, sums):
    hub_dir = tmp_path / "hub"
    revision = hub.push_files(write=write_text("{}"), hub_dir=hub_dir, name="m")
    file = hub_dir / "models--hfprobe--m" / "sums" / revision.commit
    file.unlink()
    if sums == "a folder":
        file.mkdir()
    elif sums != "none":
        file.write_bytes(b"\xff\xfe" if sums == "not text" else b"x\n")
    expected = f"The checksums of hfprobe/m@{revision.commit[:12]} in '{file}' cannot be read. Use an older revision"
    if sums == "other text":
        expected = "'config.json' of hfprobe/m@"
    with pytest.raises(InputError, match=re.escape(expected)):
        hub.resolve_model(model="m", hub_dir=hub_dir)


def test_copied_revision_is_read_without_earlier_revisions_and_blobs(tmp_path):
    older, _ = (hub.push_files(write=write_text(text), hub_dir=tmp_path / "hub", name="m") for text in "12")
    copy_without_links(tmp_path / "hub", tmp_path / "copy")
    repository = tmp_path / "copy" / "models--hfprobe--m"
    shutil.rmtree(repository / "snapshots" / older.commit)
    shutil.rmtree(repository / "blobs")
    assert (hub.resolve_model(model="m", hub_dir=tmp_path / "copy") / "config.json").read_text() == "2"


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_checksums_of_a_revision_pass_sha256sum(pushed):
    _, _, revision = pushed
    sums = revision.path.parent.parent / "sums" / revision.commit
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", sums], cwd=revision.path, check=True)


@pytest.mark.parametrize("copied", [False, True])
def test_error_names_damaged_links_and_unreadable_files_of_a_revision(tmp_path, monkeypatch, copied):
    hub_dir = tmp_path / "hub"
    revision = hub.push_files(write=write_text("{}"), hub_dir=hub_dir, name="m")
    file = revision.path / "config.json"
    if copied:
        copy_without_links(hub_dir, tmp_path / "copy")
        file, hub_dir = tmp_path / "copy" / file.relative_to(hub_dir), tmp_path / "copy"

    def refuse(file):
        raise PermissionError(errno.EACCES, "Permission denied", file)

    with monkeypatch.context() as patch:
        patch.setattr("hfprobe.hub.revision.sha256", refuse)
        expected = f"'{file}' in the hub folder cannot be read: Permission denied. Make it readable, or pass another"
        with pytest.raises(InputError, match=re.escape(expected)):
            hub.resolve_model(model="m", hub_dir=hub_dir)
    for target in ("config.json", "../../blobs/none"):
        file.unlink()
        file.symlink_to(target)
        with pytest.raises(InputError, match=re.escape("'config.json' of hfprobe/m@")):
            hub.resolve_model(model="m", hub_dir=hub_dir)
