import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir
from safetensors import SafetensorError
from transformers import AutoModelForImageClassification

from helpers.hub_folders import write_text
from helpers.images import CLASSES
from helpers.models import CARD, cat_model
from helpers.processes import start_python
from hfprobe.hub import local as hub
from hfprobe.system.errors import InputError, MachineError


def test_only_data_code_and_text_are_published(pushed):
    _, _, revision = pushed
    names = {file.name for file in revision.path.iterdir()}
    assert names == {"model.safetensors", "config.json", "preprocessor_config.json", "modeling.py", "README.md"}
    for file in revision.path.iterdir():
        assert file.read_bytes()[:2] not in (b"\x80\x04", b"\x80\x02", b"PK")  # pickles and torch archives


def test_files_of_a_revision_have_the_read_permissions_of_the_folder(pushed):
    _, _, revision = pushed
    allowed = revision.path.stat().st_mode & 0o444
    assert {file.stat().st_mode & 0o444 for file in revision.path.iterdir()} == {allowed}


def test_pickle_is_not_published(tmp_path):
    with pytest.raises(
        InputError, match=re.escape("'training_args.bin' cannot be published. Allowed: files ending in")
    ):
        hub.push_files(
            write=lambda folder: (folder / "training_args.bin").touch(), hub_dir=tmp_path / "hub", name="simple-cnn"
        )
    assert hub.list_revisions(hub_dir=tmp_path / "hub", name="simple-cnn") == []


def test_new_push_adds_a_revision_and_keeps_the_old_one(tmp_path):
    first = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    second = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    revisions = hub.list_revisions(hub_dir=tmp_path, name="m")
    assert [revision.commit for revision in revisions] == [second.commit, first.commit]
    assert [revision.is_main for revision in revisions] == [True, False]
    assert hub.resolve_model(model="m", hub_dir=tmp_path) == second.path
    assert hub.resolve_model(model=f"hfprobe/m@{first.commit[:7]}", hub_dir=tmp_path) == first.path
    assert len(list((tmp_path / "models--hfprobe--m" / "blobs").iterdir())) == 1


def test_failed_push_keeps_main_and_removes_its_staging_folder(tmp_path, monkeypatch):
    first = hub.push_files(write=write_text("1"), hub_dir=tmp_path, name="m")

    def full_disk(folder):
        (folder / "config.json").write_text("2")
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match=re.escape("failed: No space left on device. Nothing was published.")):
        hub.push_files(write=full_disk, hub_dir=tmp_path, name="m")
    assert [revision.commit for revision in hub.list_revisions(hub_dir=tmp_path, name="m")] == [first.commit]
    assert hub.resolve_model(model="m", hub_dir=tmp_path) == first.path
    assert list(tmp_path.rglob("staging")) == []


def test_failed_first_push_leaves_no_model(tmp_path):
    with pytest.raises(InputError, match=re.escape("'weights.bin' cannot be published.")):
        hub.push_files(write=lambda folder: (folder / "weights.bin").touch(), hub_dir=tmp_path, name="m")
    assert list(tmp_path.glob("models--*")) == []
    assert not scan_cache_dir(tmp_path).warnings
    with pytest.raises(InputError, match=re.escape("which has: nothing yet.")):
        hub.resolve_model(model="m", hub_dir=tmp_path)


def test_push_that_fails_at_its_last_step_publishes_nothing_and_can_be_repeated(tmp_path, monkeypatch):
    first = hub.push_files(write=write_text("1"), hub_dir=tmp_path, name="m")
    replace = os.replace

    def full_disk(source, target):
        if target.name == "main":
            raise OSError(28, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        with pytest.raises(MachineError, match=re.escape("failed: No space left on device. Nothing was published.")):
            hub.push_files(write=write_text("2"), hub_dir=tmp_path, name="m")
    assert [revision.commit for revision in hub.list_revisions(hub_dir=tmp_path, name="m")] == [first.commit]
    second = hub.push_files(write=write_text("2"), hub_dir=tmp_path, name="m")
    assert hub.resolve_model(model="m", hub_dir=tmp_path) == second.path


def test_error_for_unwritable_weights_mentions_space_only_if_the_disk_is_full(tmp_path):
    def refuse(folder):
        raise SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)")

    expected = "Permission denied (os error 13). Nothing was published. Pass another --hub_dir, and run"
    with pytest.raises(MachineError, match=re.escape(expected)):
        hub.push_files(write=refuse, hub_dir=tmp_path, name="m")


def test_full_disk_while_weights_are_written_is_a_one_line_error(tmp_path):
    def full_disk(folder):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(MachineError, match=re.escape("No space left on device (os error 28). Nothing was published.")):
        hub.push_files(write=full_disk, hub_dir=tmp_path, name="m")


@pytest.mark.parametrize("moment", ["write", "main"])
def test_killed_push_keeps_main_and_the_next_push_removes_its_files(tmp_path, moment):
    first = hub.push_files(write=write_text("1"), hub_dir=tmp_path, name="m")
    killed = start_python(
        f"""
        import os, signal
        from hfprobe.hub import local as hub

        replace = os.replace

        def die_before_main(source, target):
            if target.name == "main":
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        def write(folder):
            (folder / "config.json").write_text("2")
            if {moment == "write"}:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = die_before_main
        hub.push_files(write=write, hub_dir={str(tmp_path)!r}, name="m")
        """
    )
    _, errors = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, errors
    assert hub.resolve_model(model="m", hub_dir=tmp_path) == first.path
    assert not scan_cache_dir(tmp_path).warnings
    second = hub.push_files(write=write_text("2"), hub_dir=tmp_path, name="m")
    assert {revision.commit for revision in hub.list_revisions(hub_dir=tmp_path, name="m")} == {
        first.commit,
        second.commit,
    }
    hub.check_revision(second)
    assert list(tmp_path.rglob("staging")) == []


def test_concurrent_pushes_of_two_processes_all_succeed(tmp_path):
    code = f"""
        import time
        from hfprobe.hub import local as hub

        def write(folder):
            (folder / "config.json").write_text("1")
            time.sleep(0.2)
            (folder / "a.json").write_text("2")

        for _ in range(2):
            hub.push_files(write=write, hub_dir={str(tmp_path)!r}, name="m")
        """
    processes = [start_python(code) for _ in range(2)]
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    revisions = hub.list_revisions(hub_dir=tmp_path, name="m")
    assert [revision.is_main for revision in revisions] == [True, False, False, False]
    for revision in revisions:
        assert {file.name for file in revision.path.iterdir()} == {"config.json", "a.json"}
        hub.check_revision(revision)


def test_files_are_copied_on_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EPERM, "Operation not permitted")

    assert hub.makes_links(tmp_path / "hub" / "new")
    monkeypatch.setattr(Path, "symlink_to", refuse)  # os.symlink would do from Python 3.11 on
    assert not hub.makes_links(tmp_path / "hub" / "new")
    assert list(tmp_path.iterdir()) == []
    revisions = [hub.push_files(write=write_text(text), hub_dir=tmp_path, name="m") for text in ("{}", "[]")]
    for revision, text in zip(revisions, ("{}", "[]"), strict=True):
        assert not (revision.path / "config.json").is_symlink()
        found = hub.resolve_model(model=f"m@{revision.commit}", hub_dir=tmp_path)
        assert (found / "config.json").read_text() == text
    assert not scan_cache_dir(tmp_path).warnings
    model, processor = cat_model()
    hub.push_model(model=model, processor=processor, hub_dir=tmp_path, name="simple-cnn", card=CARD)
    loaded = AutoModelForImageClassification.from_pretrained(
        "hfprobe/simple-cnn", cache_dir=tmp_path, local_files_only=True
    )
    assert loaded.config.id2label == dict(enumerate(CLASSES))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free some space, or pass another --hub_dir, and run the same command with --resume."),
        (errno.EACCES, "Nothing was published. Pass another --hub_dir, and run the same command with --resume."),
    ],
)
def test_error_of_a_failed_push_names_the_matching_remedy(tmp_path, number, remedy):
    def fail(folder):
        raise OSError(number, os.strerror(number))

    with pytest.raises(MachineError, match=re.escape(remedy)):
        hub.push_files(write=fail, hub_dir=tmp_path, name="m")


def test_standard_clients_list_every_revision(tmp_path):
    pushes = [hub.push_files(write=write_text(text), hub_dir=tmp_path, name="simple-cnn") for text in "12"]
    scanned = scan_cache_dir(tmp_path)
    assert not scanned.warnings
    (repository,) = scanned.repos
    assert {found.commit_hash: set(found.refs) for found in repository.revisions} == {
        pushes[0].commit: set(),
        pushes[1].commit: {"main"},
    }
    command = Path(sys.executable).parent / "hf"
    if not command.exists():
        pytest.skip("the hf command is not installed")
    done = subprocess.run(
        [command, "cache", "ls", "--revisions", "--show-warnings", "--no-truncate", "--cache-dir", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "model/hfprobe/simple-cnn" in done.stdout
    for push in pushes:
        assert push.commit in done.stdout
    assert "warning" not in done.stderr.lower()


def test_config_names_the_file_of_its_code(pushed):
    config = json.loads((pushed[2].path / "config.json").read_text())
    assert config["auto_map"]["AutoModelForImageClassification"] == "modeling.SimpleCNN"
