"""Atomic checkpoints: staged, fsynced, checksummed in a manifest, then renamed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from hfprobe.settings.arguments import RunArguments
from hfprobe.system.errors import InputError, find_shortage, first_line
from hfprobe.system.files import sha256, sync
from hfprobe.system.model_files import WEIGHTS_FILE

MANIFEST_FILE = "manifest.json"
STATE_FILE = "trainer_state.json"  # as transformers names it
STAGING = ".saving"  # in the run folder; transformers looks at checkpoint-* alone
NAME = re.compile(r"checkpoint-(\d+)")
# Without one of these a run cannot be continued to the bit; other files are known from the manifest.
NEEDED = (WEIGHTS_FILE, "optimizer.pt", "scheduler.pt", STATE_FILE)


def step_of(checkpoint: str | Path) -> int:
    """The step in a checkpoint's name."""
    return int(Path(checkpoint).name.removeprefix("checkpoint-"))


def name_of(step: int) -> str:
    """The name of a step's checkpoint."""
    return f"checkpoint-{step}"


def progress_file(process: int) -> str:
    """The file of a checkpoint that holds what Trainer does not save of a process."""
    return f"progress-{process}.json"


def seal_checkpoint(staged: Path, target: Path) -> None:
    """Sync every file of `staged`, write the manifest, rename the folder to `target`, which is replaced."""
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    manifest = {str(path.relative_to(staged)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}
    (staged / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1))
    for path in [*files, staged / MANIFEST_FILE, staged]:
        sync(path)
    if target.exists():  # a damaged one that a resumed run passed over
        replaced = staged.with_name("replaced")
        os.rename(target, replaced)
        shutil.rmtree(replaced)
    os.rename(staged, target)
    sync(target.parent)


def delete_old(folder: Path, *, keep: int | None, best: str | None) -> None:
    """Delete the oldest checkpoints until `keep` are left; the newest and the `best` one stay in any case.

    transformers' own function deletes every folder whose path holds the word checkpoint and a number. Here a folder
    must be named like a checkpoint and hold a manifest, which only hfprobe writes.
    """
    sealed = [path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name)]
    sealed = sorted((path for path in sealed if (path / MANIFEST_FILE).is_file()), key=step_of)
    if not keep or keep < 0 or not sealed:
        return
    protected = {sealed[-1].name, Path(best or sealed[-1]).name}
    surplus = max(0, len(sealed) - max(keep, len(protected)))
    for path in [path for path in sealed if path.name not in protected][:surplus]:
        shutil.rmtree(path, ignore_errors=True)


def find_fault(checkpoint: Path) -> str | None:
    """Why a checkpoint is not intact, as part of a sentence; None where it is intact."""
    try:
        manifest = json.loads((checkpoint / MANIFEST_FILE).read_text())
        expected = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST_FILE}"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"its {MANIFEST_FILE} is damaged"
    for name in NEEDED:
        if name not in expected:
            return f"it was saved without {name}"
    for name, (size, sum_) in expected.items():
        path = checkpoint / name
        if ".." in Path(name).parts or Path(name).is_absolute() or path.is_symlink():
            return f"its {MANIFEST_FILE} names {name}, which is outside"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        if sha256(path) != sum_:
            return f"the content of {name} was changed"
    return None


def find_newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint that refers to an intact best one, and why newer ones were passed over.

    Returns:
        The checkpoint, or None where there is none; a sentence for each that was passed over, newest first.
    """
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and NAME.fullmatch(path.name)]
    passed: list[str] = []
    for path in sorted(found, key=step_of, reverse=True):
        fault = find_fault(path)
        best = None if fault else json.loads((path / STATE_FILE).read_text()).get("best_model_checkpoint")
        # By name: the run folder may have been moved since.
        if best is not None and Path(best).name != path.name and (lost := find_fault(folder / Path(best).name)):
            fault = f"the best checkpoint so far, {Path(best).name}, cannot be used: {lost}"
        if fault is None:
            return path, passed
        passed.append(f"{path.name} was passed over: {fault}.")
    return None, passed


@contextlib.contextmanager
def reading(checkpoint: str | Path | None) -> Iterator[None]:
    """Turn any failure to load a checkpoint into a one-line error, except that the memory ran out.

    The checksums show that the files are those that were saved, not that Trainer can load them.
    """
    try:
        yield
    except Exception as error:  # pickle, torch and safetensors raise a dozen kinds
        if find_shortage(error) is not None:
            raise
        raise InputError(
            f"'{checkpoint}' cannot be loaded: {first_line(error)}. Remove it, and continue from an earlier one with "
            "--resume."
        ) from error


def resume_command(arguments: RunArguments) -> str:
    """How to continue a run, as part of a sentence."""
    return f"run the same command with --resume{' instead of --overwrite' if arguments.overwrite else ''}"
