"""The local hub folder: models as revisions in the layout of the Hugging Face cache, so that any standard client
finds them offline.

    hub/models--hfprobe--simple-cnn/
        blobs/<sha256>            each file once, named by its SHA-256
        snapshots/<revision>/     links to files in blobs/; copies if the file system does not support links
        snapshots/<revision>/onnx/  an export of the revision, if one was made: see hfprobe.hub.exports
        sums/<revision>           checksums of the files, in the format of sha256sum; standard clients ignore it
        refs/main                 the newest revision
    hub/.locks/                   the lock and the staging folder of a push; standard clients ignore it

A push is atomic: files are written to a staging folder and synced, the folder is renamed to its final place, and
`main` is moved last.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hfprobe.hub.model_card import render_card
from hfprobe.hub.revision import Revision, blob_link, check_revision
from hfprobe.system.errors import InputError, MachineError, shorten
from hfprobe.system.files import locked, sha256, sync
from hfprobe.system.model_files import CONFIG_FILE
from hfprobe.system.process import command

ORGANISATION = "hfprobe"
COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{,95}")  # as long as the hub allows
PUSH_LOCK = "push.lock"
# Subfolders of a model's folder.
PARTS = ("blobs", "snapshots", "sums", "refs")
# File endings that may be published. Any other file in a staging folder is a mistake, above all a pickle, which runs
# code when it is loaded.
PUBLISHED = {".safetensors", ".json", ".py", ".md"}


def push_model(*, model: Any, processor: Any, hub_dir: str | Path, name: str, card: dict[str, Any]) -> Revision:
    """Publish a model, its image processor, its code and a model card as a new revision.

    Args:
        model: a PreTrainedModel registered with `register_for_auto_class`, so that its code file is saved too.
        name: name of the model without the organisation: `simple-cnn`.
        card: values of the template `model_card.md.j2`.

    Raises:
        MachineError: the hub folder could not be written; `main` has not moved.
    """

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(render_card(name=f"{ORGANISATION}/{name}", card=card), encoding="utf-8")

    return push_files(write=save, hub_dir=hub_dir, name=name)


def push_files(*, write: Callable[[Path], None], hub_dir: str | Path, name: str) -> Revision:
    """Publish the files that `write(folder)` puts into a folder as a new revision; `main` moves to it last.

    Raises:
        InputError: a file has an ending that may not be published, or `name` is not a valid model name.
        MachineError: the hub folder could not be written; `main` has not moved.
    """
    repository = _repository(Path(hub_dir), name)
    push_folder = push_folders(hub_dir=hub_dir, name=name)[0]
    staging = push_folder / "staging"
    files = staging / "files"
    try:
        push_folder.mkdir(parents=True, exist_ok=True)
        with locked(push_folder / PUSH_LOCK):  # concurrent pushes wait for each other
            shutil.rmtree(staging, ignore_errors=True)  # left by a push that was killed
            try:
                files.mkdir(parents=True)
                write(files)
                _check_publishable(files)
                return _publish(repository, files, name)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as its own error
        number = getattr(error, "errno", None) or int((re.findall(r"os error (\d+)", str(error)) or [0])[0])
        full = number in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some space, or pass" if full else "Pass"
        raise MachineError(
            f"The push to '{hub_dir}' failed: {getattr(error, 'strerror', None) or error}. Nothing was published. "
            f"{remedy} another --hub_dir, and run the same command with --resume."
        ) from error


def _publish(repository: Path, files: Path, name: str) -> Revision:
    checksums = {file.name: sha256(file) for file in sorted(files.iterdir())}
    parent = _main(repository) or ""
    content = "\n".join([parent, *(f"{checksum} {file}" for file, checksum in checksums.items())])
    commit = hashlib.sha1(content.encode()).hexdigest()
    blobs, snapshots, checksum_lists, refs = push_folders(hub_dir=repository.parent, name=name)[1:]
    snapshot, reference, checksum_list = files.parent / "snapshot", files.parent / "main", files.parent / "sums"
    for folder in (blobs, snapshots, checksum_lists, refs, snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for file, checksum in checksums.items():
        (files / file).chmod(files.stat().st_mode & 0o666)  # safetensors makes files that only their owner can read
        sync(files / file)
        os.replace(files / file, blobs / checksum)  # an older blob of that name may be damaged
        try:
            (snapshot / file).symlink_to(blob_link(checksum))
        except OSError:  # no links: copy, as huggingface_hub does on Windows without developer mode
            shutil.copyfile(blobs / checksum, snapshot / file)
            sync(snapshot / file)
    reference.write_text(commit)
    checksum_list.write_text("".join(f"{checksum}  {file}\n" for file, checksum in checksums.items()))
    for path in (reference, checksum_list, snapshot, blobs):
        sync(path)
    os.replace(checksum_list, checksum_lists / commit)
    sync(checksum_lists)
    target = snapshots / commit
    shutil.rmtree(target, ignore_errors=True)  # left by a push that was killed before `main` moved
    os.rename(snapshot, target)
    try:
        sync(snapshots)
        os.replace(reference, refs / "main")
    except OSError:
        shutil.rmtree(target)
        raise
    sync(refs)
    return _revision(repository, name, commit, main=commit)


def list_revisions(*, hub_dir: str | Path, name: str) -> list[Revision]:
    """All revisions of a model, newest first; an empty list if the hub folder does not have the model."""
    repository = _repository(Path(hub_dir), name)
    main = _main(repository)
    try:
        commits = [entry.name for entry in os.scandir(repository / "snapshots") if entry.is_dir()]
    except (OSError, ValueError):  # the folder does not exist or cannot be read
        commits = []
    revisions = [_revision(repository, name, commit, main=main) for commit in commits if COMMIT.fullmatch(commit)]
    return sorted(revisions, key=lambda revision: (revision.created, revision.is_main), reverse=True)


def resolve_model(*, model: str, hub_dir: str | Path = "hub") -> Path:
    """The folder of a model.

    Args:
        model: a folder with a config.json, or a name in the hub folder: `simple-cnn` or `hfprobe/simple-cnn`. For a
            revision other than `main`, `@` and at least seven digits of the revision follow: `simple-cnn@0123abc`.

    Raises:
        InputError: the folder, name or revision does not exist; a file of the revision is damaged; a link in it points
            outside the hub folder.
    """
    if os.path.isdir(model):  # False for text that is not a valid path, for which Path.is_dir raises
        if not (Path(model) / CONFIG_FILE).is_file():
            raise InputError(
                f"'{model}' is not a model folder: it has no config.json. Pass a checkpoint, a snapshot of the hub "
                f"folder, or a name in the hub folder, which has: {_known(hub_dir)}."
            )
        return Path(model)
    name, _, requested = model.removeprefix(f"{ORGANISATION}/").partition("@")
    revisions = list_revisions(hub_dir=hub_dir, name=name) if NAME.fullmatch(name) else []
    if not revisions:
        raise InputError(
            f"No model '{shorten(model)}': neither a folder nor a name in the hub folder '{hub_dir}', which has: "
            f"{_known(hub_dir)}. Train one: {command('train')} --model cnn"
        )
    if not requested or requested == "main":
        found = [revision for revision in revisions if revision.is_main]
    else:
        found = [revision for revision in revisions if len(requested) >= 7 and revision.commit.startswith(requested)]
    if len(found) != 1:
        known = ", ".join(revision.commit[:12] for revision in revisions)
        raise InputError(f"No revision '{requested or 'main'}' of {name}. Known, newest first: {known}.")
    path = found[0].path
    try:
        for file in [path, *path.iterdir()]:
            target = os.path.realpath(file)
            if not Path(target).is_relative_to(os.path.realpath(hub_dir)):
                raise InputError(
                    f"'{model}' has a file outside the hub folder '{hub_dir}': '{file}' is a link to '{target}'. "
                    "Push the model again, or pass a model folder that you trust."
                )
        check_revision(found[0])
    except OSError as error:
        raise InputError(
            f"'{error.filename}' in the hub folder cannot be read: {error.strerror}. Make it readable, or pass another "
            "--hub_dir."
        ) from error
    return path


def push_folders(*, hub_dir: str | Path, name: str) -> list[Path]:
    """The folders that a push writes to: first that of its lock and staging, then those that it moves files into."""
    repository = _repository(Path(hub_dir), name)
    return [Path(hub_dir) / ".locks" / repository.name, *(repository / part for part in PARTS)]


def moves_files(*, hub_dir: str | Path, name: str) -> bool:
    """Whether a push can move files out of its staging folder: all its folders must be on one file system.

    The folders need not exist; nothing is left behind.
    """
    push_folder, *targets = (_nearest(folder) for folder in push_folders(hub_dir=hub_dir, name=name))
    for target in targets:
        with tempfile.TemporaryDirectory(dir=push_folder) as trial, tempfile.TemporaryDirectory(dir=target) as there:
            Path(trial, "file").touch()
            try:
                os.rename(Path(trial, "file"), Path(there, "file"))
            except OSError:
                return False
    return True


def makes_links(hub_dir: str | Path) -> bool:
    """Whether the file system of the hub folder, which need not exist yet, supports links; nothing is left behind."""
    with tempfile.TemporaryDirectory(dir=_nearest(Path(hub_dir))) as trial:
        try:
            Path(trial, "link").symlink_to("file")
        except OSError:
            return False
    return True


def _nearest(folder: Path) -> Path:
    """The folder itself if it exists, otherwise its nearest parent that exists."""
    return next(path for path in [folder.absolute(), *folder.absolute().parents] if path.is_dir())


def list_models(hub_dir: str | Path) -> list[str]:
    """The names of the models in the hub folder, sorted; an empty list if there is no hub folder."""
    prefix = f"models--{ORGANISATION}--"
    try:
        found = [entry for entry in os.listdir(hub_dir) if entry.startswith(prefix)]
    except (OSError, ValueError):
        found = []
    return sorted(entry.removeprefix(prefix) for entry in found if _main(Path(hub_dir) / entry) is not None)


def _known(hub_dir: str | Path) -> str:
    return ", ".join(list_models(hub_dir)) or "nothing yet"


def _repository(hub_dir: Path, name: str) -> Path:
    if not NAME.fullmatch(name):
        raise InputError(f"'{name}' is not a model name. Allowed: letters, digits, '.', '_' and '-'.")
    return hub_dir / f"models--{ORGANISATION}--{name}"


def _main(repository: Path) -> str | None:
    try:
        return (repository / "refs" / "main").read_text().strip()
    except (OSError, ValueError):  # the file does not exist or cannot be read
        return None


def _revision(repository: Path, name: str, commit: str, *, main: str | None) -> Revision:
    path = repository / "snapshots" / commit
    created = datetime.fromtimestamp(path.stat().st_mtime_ns / 1e9, tz=timezone.utc)
    return Revision(f"{ORGANISATION}/{name}", commit, path, created, commit == main)


def _check_publishable(folder: Path) -> None:
    for file in folder.iterdir():
        if file.is_dir() and file.name == "__pycache__":
            shutil.rmtree(file)
        elif file.suffix not in PUBLISHED or not file.is_file():
            raise InputError(
                f"'{file.name}' cannot be published. Allowed: files ending in {', '.join(sorted(PUBLISHED))}."
            )
