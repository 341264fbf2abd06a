"""The export of a model: files in the folder `onnx` of the model's own folder, where standard clients look for them.

A revision in the hub folder is named by the checksums of the files that were pushed, so these cannot change. An export
is made from them: it does not change what the revision is, and a new revision for it would only be a second name of the
same weights, which reports do not know. So its folder is added to the snapshot. It holds the checksums of its own files
and of those that it was made from, and `hfprobe.hub.revision.check_revision` skips it: a damaged export does no harm to
the model.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from hfprobe.hub.local import PUSH_LOCK
from hfprobe.system.errors import InputError
from hfprobe.system.files import check_writable, explain_full_disk, locked, sha256, staging_folder, sync
from hfprobe.system.model_files import CONFIG_FILE, EXPORT_FOLDER, PROCESSOR_FILE

STAGING = ".export-"


def source_checksums(model: Path) -> dict[str, str]:
    """File name -> SHA-256 of the files of a model folder that an export is made from."""
    files = [*sorted(model.glob("*.safetensors")), model / CONFIG_FILE, model / PROCESSOR_FILE]
    return {file.name: sha256(file) for file in files}


def export_checksums(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of the ONNX files in a folder.

    Raises:
        InputError: one of them is a link.
    """
    files = sorted(folder.glob("*.onnx"))
    for file in files:
        if file.is_symlink():
            raise InputError(f"'{file}' is a link to '{os.readlink(file)}', which an export does not have. Remove it.")
    return {file.name: sha256(file) for file in files}


@contextlib.contextmanager
def publish_export(model: Path) -> Iterator[Path]:
    """A staging folder; after the block, it replaces the folder of the export of a model as a whole.

    If the block raises, or the process is killed, the earlier export is intact. Only a process that is killed between
    two renames leaves the model without an export.

    Args:
        model: folder of the model, a snapshot of the hub folder or any other.

    Raises:
        InputError: the folder cannot be written to.
        MachineError: not enough free space.
    """
    place = _staging_place(model)
    if not os.access(model, os.W_OK):
        raise InputError(f"'{model}' cannot be written to. Make it writable, or copy the model to another folder.")
    check_writable(place, flag="the folder of the export")
    place.mkdir(parents=True, exist_ok=True)
    with (
        explain_full_disk("The export", model, kept="Nothing was changed."),
        staging_folder(place, prefix=STAGING) as staging,
    ):
        files, old, target = staging / "new", staging / "old", model / EXPORT_FOLDER
        files.mkdir()
        yield files
        for file in [*files.iterdir(), files]:
            sync(file)
        with locked(place / PUSH_LOCK) if place != model else contextlib.nullcontext():
            if target.is_dir():
                os.rename(target, old)
            os.rename(files, target)
        sync(model)


def _staging_place(model: Path) -> Path:
    """Where the files wait: not in a snapshot, in which a leftover folder would count as damage."""
    model = model.absolute()
    if model.parent.name != "snapshots":
        return model
    repository = model.parents[1]
    return repository.parent / ".locks" / repository.name
