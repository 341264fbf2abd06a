"""The local hub folder: models as revisions in the layout of the Hugging Face cache, so that any standard client
finds them offline.

    hub/models--hfprobe--simple-cnn/
        blobs/<sha256>            every file once, named by its content
        snapshots/<revision>/     links into blobs/; copies where the file system has no links
        sums/<revision>           checksums of its files as sha256sum writes them, which the clients skip
        refs/main                 the newest revision
    hub/.locks/                   lock and staging of a push, which the clients skip

A revision appears whole or not at all: files are synced in a staging folder, the folder is renamed into place, and
`main` moves last.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml
from jinja2 import FileSystemLoader
from markupsafe import Markup
from safetensors import SafetensorError

from hfprobe.system.errors import InputError, MachineError, shorten
from hfprobe.system.files import locked, sha256, sync
from hfprobe.system.markdown import make_markdown_environment
from hfprobe.system.model_files import CONFIG_FILE
from hfprobe.system.process import script

ORGANISATION = "hfprobe"
COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{,95}")  # as long as the hub allows
PUSH_LOCK = "push.lock"
# Of a model's folder.
PARTS = ("blobs", "snapshots", "sums", "refs")
# What may be published. Anything else in a staging folder is a mistake, pickles above all.
PUBLISHED = {".safetensors", ".json", ".py", ".md"}


@dataclass(frozen=True)
class Revision:
    """One pushed state of a model."""

    name: str  # hfprobe/simple-cnn
    commit: str  # 40 hex digits
    path: Path  # the snapshot folder, which from_pretrained takes
    created: datetime
    is_main: bool


def push_model(*, model: Any, processor: Any, hub_dir: str | Path, name: str, card: dict[str, Any]) -> Revision:
    """Publish a model, its image processor, its code and a model card as a new revision.

    Args:
        model: a PreTrainedModel registered with `register_for_auto_class`, so that its code file is saved too.
        name: without the organisation: `simple-cnn`.
        card: what the template `model_card.md.j2` shows.

    Raises:
        MachineError: the hub folder could not be written; `main` is where it was.
    """

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text(render_card(name=name, card=card), encoding="utf-8")

    return push_files(write=save, hub_dir=hub_dir, name=name)


def push_files(*, write: Callable[[Path], None], hub_dir: str | Path, name: str) -> Revision:
    """Publish what `write(folder)` puts into a folder as a new revision; `main` moves to it last."""
    repository = _repository(Path(hub_dir), name)
    workshop = push_folders(hub_dir=hub_dir, name=name)[0]
    staging = workshop / "staging"
    files = staging / "files"
    try:
        workshop.mkdir(parents=True, exist_ok=True)
        with locked(workshop / PUSH_LOCK):  # two pushes at once arrive one after the other
            shutil.rmtree(staging, ignore_errors=True)  # of a push that was killed
            try:
                files.mkdir(parents=True)
                write(files)
                _refuse_unpublishable(files)
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
    sums = {file.name: sha256(file) for file in sorted(files.iterdir())}
    parent = _main(repository) or ""
    content = "\n".join([parent, *(f"{sum_} {file}" for file, sum_ in sums.items())])
    commit = hashlib.sha1(content.encode()).hexdigest()
    blobs, snapshots, sums_folder, refs = push_folders(hub_dir=repository.parent, name=name)[1:]
    snapshot, reference, listed = files.parent / "snapshot", files.parent / "main", files.parent / "sums"
    for folder in (blobs, snapshots, sums_folder, refs, snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for file, sum_ in sums.items():
        (files / file).chmod(files.stat().st_mode & 0o666)  # safetensors lets nobody but the owner read
        sync(files / file)
        os.replace(files / file, blobs / sum_)  # an older blob of that name may be damaged
        try:
            (snapshot / file).symlink_to(_link(sum_))
        except OSError:  # as huggingface_hub does on Windows without developer mode
            shutil.copyfile(blobs / sum_, snapshot / file)
            sync(snapshot / file)
    reference.write_text(commit)
    listed.write_text("".join(f"{sum_}  {file}\n" for file, sum_ in sums.items()))
    for path in (reference, listed, snapshot, blobs):
        sync(path)
    os.replace(listed, sums_folder / commit)
    sync(sums_folder)
    target = snapshots / commit
    shutil.rmtree(target, ignore_errors=True)  # of a push that was killed before `main` moved
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
    """All revisions of a model, newest first; empty where the hub folder does not have it."""
    repository = _repository(Path(hub_dir), name)
    main = _main(repository)
    try:
        commits = [entry.name for entry in os.scandir(repository / "snapshots") if entry.is_dir()]
    except (OSError, ValueError):  # none, or no folder that can be read
        commits = []
    revisions = [_revision(repository, name, commit, main=main) for commit in commits if COMMIT.fullmatch(commit)]
    return sorted(revisions, key=lambda revision: (revision.created, revision.is_main), reverse=True)


def resolve_model(*, model: str, hub_dir: str | Path = "hub") -> Path:
    """The folder of a model.

    Args:
        model: a folder with a config.json, or a name in the hub folder: `simple-cnn`, `hfprobe/simple-cnn`, with
            `@` and a revision of at least seven digits where it is not `main`.

    Raises:
        InputError: no such folder, name or revision; a link in the revision leaves the hub folder; a damaged file.
    """
    if os.path.isdir(model):  # False for what can be no path, where Path's method raises
        if not (Path(model) / CONFIG_FILE).is_file():
            raise InputError(
                f"'{model}' is not a model folder: it has no config.json. Give a checkpoint, a snapshot of the hub "
                f"folder, or a name: {_known(hub_dir)}."
            )
        return Path(model)
    name, _, wanted = model.removeprefix(f"{ORGANISATION}/").partition("@")
    revisions = list_revisions(hub_dir=hub_dir, name=name) if NAME.fullmatch(name) else []
    if not revisions:
        raise InputError(
            f"No model '{shorten(model)}': neither a folder nor a name in the hub folder '{hub_dir}', which has: "
            f"{_known(hub_dir)}. Train one: python {script('train')} --model cnn"
        )
    if not wanted or wanted == "main":
        found = [revision for revision in revisions if revision.is_main]
    else:
        found = [revision for revision in revisions if len(wanted) >= 7 and revision.commit.startswith(wanted)]
    if len(found) != 1:
        known = ", ".join(revision.commit[:12] for revision in revisions)
        raise InputError(f"No revision '{wanted or 'main'}' of {name}. Known, newest first: {known}.")
    path = found[0].path
    try:
        for file in [path, *path.iterdir()]:
            target = os.path.realpath(file)
            if not Path(target).is_relative_to(os.path.realpath(hub_dir)):
                raise InputError(
                    f"'{model}' leaves the hub folder '{hub_dir}': '{file}' leads to '{target}'. "
                    "Push the model again, or give a model folder that you trust."
                )
        verify_revision(found[0])
    except OSError as error:
        raise InputError(
            f"'{error.filename}' in the hub folder cannot be read: {error.strerror}. Make it readable, or pass another "
            "--hub_dir."
        ) from error
    return path


def verify_revision(revision: Revision) -> None:
    """Raise InputError naming the first file whose content is not what was pushed, that is missing or was added.

    The content decides, not whether a file is a link: a hub folder may be copied or unpacked without links. Revisions
    of earlier versions have no list of checksums: a link says its own there, any other file has to be one of the blobs.
    """
    repository = revision.path.parent.parent
    pushed = _read_sums(repository / "sums" / revision.commit)
    for name in sorted({file.name for file in revision.path.iterdir()} | pushed.keys()):
        file = revision.path / name
        found = sha256(file) if file.is_file() else "none"
        if pushed:
            intact = pushed.get(name) == found
        elif file.is_symlink():
            intact = os.readlink(file) == _link(found)
        else:
            intact = (repository / "blobs" / found).is_file()
        if not intact:
            raise InputError(
                f"'{name}' of {revision.name}@{revision.commit[:12]} is damaged. Use an older revision, or train and "
                "push again."
            )


def _read_sums(file: Path) -> dict[str, str]:
    """Name of a file -> its SHA-256; empty where the revision has no list, or one that cannot be read."""
    try:
        lines = re.findall(r"^([0-9a-f]{64})  (.+)$", file.read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return {}
    return {name: sum_ for sum_, name in lines}


def push_folders(*, hub_dir: str | Path, name: str) -> list[Path]:
    """The folders that a push writes into: that of its lock and staging, and those that it moves files into."""
    repository = _repository(Path(hub_dir), name)
    return [Path(hub_dir) / ".locks" / repository.name, *(repository / part for part in PARTS)]


def moves_files(*, hub_dir: str | Path, name: str) -> bool:
    """Whether a push can move files out of its staging, which is on one file system only; nothing is left behind."""
    workshop, *targets = (_nearest(folder) for folder in push_folders(hub_dir=hub_dir, name=name))
    for target in targets:
        with tempfile.TemporaryDirectory(dir=workshop) as trial, tempfile.TemporaryDirectory(dir=target) as there:
            Path(trial, "file").touch()
            try:
                os.rename(Path(trial, "file"), Path(there, "file"))
            except OSError:
                return False
    return True


def makes_links(hub_dir: str | Path) -> bool:
    """Whether links can be made where the hub folder is or will be; nothing is left behind."""
    with tempfile.TemporaryDirectory(dir=_nearest(Path(hub_dir))) as trial:
        try:
            Path(trial, "link").symlink_to("file")
        except OSError:
            return False
    return True


def render_card(*, name: str, card: dict[str, Any]) -> str:
    """The model card as Markdown with a YAML header."""
    environment = make_markdown_environment(FileSystemLoader(Path(__file__).parent))
    environment.filters["yaml"] = _yaml_string
    return environment.get_template("model_card.md.j2").render(name=f"{ORGANISATION}/{name}", **card)


def _yaml_string(text: str) -> Markup:
    """`text` between double quotes: without them, readers of YAML 1.1 and 1.2 differ on what is a number or null."""
    text = text.encode("utf-8", "backslashreplace").decode()  # a lone surrogate has no form that all readers take
    return Markup(yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip())


def _nearest(folder: Path) -> Path:
    """The folder itself, or the innermost one on the way to it that exists."""
    return next(path for path in [folder.absolute(), *folder.absolute().parents] if path.is_dir())


def _known(hub_dir: str | Path) -> str:
    prefix = f"models--{ORGANISATION}--"
    try:
        found = [entry for entry in os.listdir(hub_dir) if entry.startswith(prefix)]
    except (OSError, ValueError):
        found = []
    names = sorted(entry.removeprefix(prefix) for entry in found if _main(Path(hub_dir) / entry) is not None)
    return ", ".join(names) or "nothing yet"


def _repository(hub_dir: Path, name: str) -> Path:
    if not NAME.fullmatch(name):
        raise InputError(f"'{name}' is not a model name. Allowed: letters, digits, '.', '_' and '-'.")
    return hub_dir / f"models--{ORGANISATION}--{name}"


def _main(repository: Path) -> str | None:
    try:
        return (repository / "refs" / "main").read_text().strip()
    except (OSError, ValueError):  # none, or none that can be read
        return None


def _revision(repository: Path, name: str, commit: str, *, main: str | None) -> Revision:
    path = repository / "snapshots" / commit
    created = datetime.fromtimestamp(path.stat().st_mtime_ns / 1e9, tz=timezone.utc)
    return Revision(f"{ORGANISATION}/{name}", commit, path, created, commit == main)


def _refuse_unpublishable(folder: Path) -> None:
    for file in folder.iterdir():
        if file.is_dir() and file.name == "__pycache__":
            shutil.rmtree(file)
        elif file.suffix not in PUBLISHED or not file.is_file():
            raise InputError(
                f"'{file.name}' cannot be published. Allowed: files ending in {', '.join(sorted(PUBLISHED))}."
            )


def _link(sum_: str) -> str:
    """From a snapshot to a blob; relative, so that a hub folder can be moved."""
    return f"../../blobs/{sum_}"
