import json
import os
import re

import pytest
import torch
from transformers import utils
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hfprobe.system import model_files
from hfprobe.system.errors import InputError
from hfprobe.training import checkpoints
from hfprobe.training.checkpoints import (
    NEEDED,
    STATE_FILE,
    find_fault,
    find_newest,
    name_of,
    reading,
    seal_checkpoint,
    step_of,
)

# What a checkpoint of a run holds besides.
OTHERS = ("rng_state.pth", "progress-0.json", "config.json", "preprocessor_config.json", "cnn.py")


def save(folder, step, *, best=None):
    staged = folder / ".saving" / f"checkpoint-{step}"
    staged.mkdir(parents=True)
    for name in (*NEEDED, *OTHERS):
        (staged / name).write_bytes(f"{name} {step}".encode() * 10)
    (staged / "trainer_state.json").write_text(json.dumps({"best_model_checkpoint": best}))
    seal_checkpoint(staged, folder / f"checkpoint-{step}")
    return folder / f"checkpoint-{step}"


def test_a_sealed_checkpoint_is_whole_and_the_newest_is_found(tmp_path):
    checkpoints = [save(tmp_path, step) for step in (8, 16, 100)]
    assert [find_fault(path) for path in checkpoints] == [None] * 3
    assert not list((tmp_path / ".saving").iterdir())
    assert find_newest(tmp_path) == (tmp_path / "checkpoint-100", [])
    assert find_newest(tmp_path / "none") == (None, [])


@pytest.mark.parametrize("name", [*NEEDED, *OTHERS, "manifest.json"])
@pytest.mark.parametrize("how", ["truncated", "emptied", "removed", "changed"])
def test_a_damaged_part_makes_it_passed_over(tmp_path, name, how):
    good, bad = save(tmp_path, 8), save(tmp_path, 16)
    victim = bad / name
    if how == "removed":
        victim.unlink()
    elif how == "changed":
        content = bytearray(victim.read_bytes())
        content[3] ^= 1
        victim.write_bytes(content)
    else:
        os.truncate(victim, victim.stat().st_size // 2 if how == "truncated" else 0)
    found, passed = find_newest(tmp_path)
    assert found == good
    assert len(passed) == 1
    assert re.fullmatch(r"checkpoint-16 was passed over: .*(" + re.escape(name) + r"|damaged).*\.", passed[0])


def test_a_checkpoint_without_what_a_resume_needs(tmp_path):
    staged = tmp_path / ".saving" / "checkpoint-8"
    staged.mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(b"weights")
    seal_checkpoint(staged, tmp_path / "checkpoint-8")
    assert find_newest(tmp_path) == (None, ["checkpoint-8 was passed over: it was saved without optimizer.pt."])


def test_a_checkpoint_is_of_no_use_without_the_best_one(tmp_path):
    first = save(tmp_path, 8)
    best = save(tmp_path, 16)
    save(tmp_path, 24, best=f"/moved/elsewhere/{best.name}")
    assert find_newest(tmp_path)[0] == tmp_path / "checkpoint-24"
    (best / "model.safetensors").unlink()
    assert find_newest(tmp_path) == (
        first,
        [
            "checkpoint-24 was passed over: the best checkpoint so far, checkpoint-16, cannot be used: "
            "model.safetensors is missing.",
            "checkpoint-16 was passed over: model.safetensors is missing.",
        ],
    )


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "link"])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path, name):
    checkpoint = save(tmp_path, 8)
    (checkpoint / "link").symlink_to("/etc/passwd")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest[name] = {"bytes": 1, "sha256": "0"}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert find_fault(checkpoint) == f"its manifest.json names {name}, which is outside"


def test_a_damaged_checkpoint_of_the_same_name_is_replaced(tmp_path):
    (save(tmp_path, 8) / "optimizer.pt").unlink()
    (tmp_path / "checkpoint-8" / "left.txt").write_text("of the damaged one")
    save(tmp_path, 8)
    assert find_fault(tmp_path / "checkpoint-8") is None
    assert not (tmp_path / "checkpoint-8" / "left.txt").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name != ".saving"] == ["checkpoint-8"]


def test_old_checkpoints_are_deleted_and_nothing_that_is_named_alike(tmp_path):
    folder = tmp_path / "checkpoint-5" / "[out]"  # transformers would take the number from there
    sealed = [f"checkpoint-{step}" for step in (9, 10, 20, 100)]
    others = ["checkpoint-1", "checkpoint-photos", "checkpoint-2 b"]
    for name in [*sealed, *others]:
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").touch()
    for name in sealed:
        (folder / name / checkpoints.MANIFEST_FILE).touch()

    def left():
        return {path.name for path in folder.iterdir()} - set(others)

    for keep, best, expected in [
        (None, None, {9, 10, 20, 100}),
        (3, "elsewhere/checkpoint-9", {9, 20, 100}),
        (1, "elsewhere/checkpoint-9", {9, 100}),
        (1, None, {100}),
    ]:
        checkpoints.delete_old(folder, keep=keep, best=best)
        assert left() == {f"checkpoint-{step}" for step in expected}
    assert all((folder / name / "1.jpg").exists() for name in others)


def test_the_names_of_files_are_those_of_transformers():
    """hfprobe writes them down again, because importing transformers takes seconds."""
    assert (STATE_FILE, model_files.WEIGHTS_FILE) == (TRAINER_STATE_NAME, utils.SAFE_WEIGHTS_NAME)
    assert (model_files.CONFIG_FILE, model_files.PROCESSOR_FILE) == (utils.CONFIG_NAME, utils.FEATURE_EXTRACTOR_NAME)
    assert name_of(7) == f"{PREFIX_CHECKPOINT_DIR}-7"
    assert step_of(name_of(7)) == 7


@pytest.mark.parametrize(
    "shortage",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("unable to mmap 4 bytes from file <x>: Cannot allocate memory (12)"),
    ],
)
def test_too_little_memory_is_not_reported_as_a_damaged_checkpoint(shortage):
    with pytest.raises(type(shortage)) as error, reading("checkpoint-4"):
        raise shortage
    assert error.value is shortage
    message = r"^'checkpoint-4' cannot be loaded: invalid header\. Remove it, and continue from an earlier one"
    with pytest.raises(InputError, match=message), reading("checkpoint-4"):
        raise ValueError("invalid header")
