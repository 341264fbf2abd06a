"""The folders that a command writes into: what it may delete there, and which folders it refuses."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hfprobe.data.sources.places import find_places
from hfprobe.system.errors import InputError
from hfprobe.system.files import locked
from hfprobe.system.model_files import read_run
from hfprobe.training.checkpoints import MANIFEST_FILE, STAGING, STATE_FILE

logger = logging.getLogger(__name__)

LOCK_FILE, RUN_FILE = ".lock", "run.json"
MODEL_FOLDER, TENSORBOARD_FOLDER, PROFILE_FOLDER = "model", "tensorboard", "profile"
# What a run writes into its output folder: files, and folders with the files in them. `.name.part` is a file that was
# being written when the run was killed.
_RESULTS = r"\.?((run|trainer_state|(all|train|eval|test)_results)\.json|config\.yaml)(\.part)?"
_MODEL = r"config\.json|preprocessor_config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|\w+\.py"
_STATE = r"(optimizer|scheduler|scaler)\.pt|rng_state(_\d+)?\.pth|progress-\d+\.json|(trainer_state|manifest)\.json"
_CHECKPOINT = rf"checkpoint-\d+/({_MODEL}|{_STATE}|training_args\.bin)"
RUN_FILES = re.compile(
    rf"{_RESULTS}|{re.escape(LOCK_FILE)}|model/({_MODEL})|{_CHECKPOINT}|\.saving/(checkpoint-\d+|replaced)/[^/]+|"
    r"tensorboard/events\.out\.tfevents\..*|profile/(trace\.json|operators_by_(time|memory)\.txt)"
)
CHECKPOINT = re.compile(r"checkpoint-\d+|\.saving")
RUN_FOLDERS = re.compile(rf"{CHECKPOINT.pattern}|model|tensorboard|profile")


def find_run_files(folder: Path) -> list[Path]:
    """The files that a run wrote into its output folder, recognised by their names and by the files beside them.

    Links are never among them, nor is the lock.

    Raises:
        InputError: a checkpoint's folder is a link or holds another file. A run deletes old checkpoints as a whole.
    """
    found = []
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not RUN_FOLDERS.fullmatch(entry.name):
            paths, is_own = [entry], True
        else:
            inside = [] if entry.is_symlink() else sorted(entry.rglob("*"))
            paths, is_own = [entry, *inside], _is_own(entry)
        for path in paths:
            if path.is_dir() and not path.is_symlink():
                continue
            name = path.relative_to(folder).as_posix()
            if is_own and RUN_FILES.fullmatch(name) and path.is_file() and not path.is_symlink():
                found += [path] if name != LOCK_FILE else []
            elif CHECKPOINT.fullmatch(entry.name):
                raise InputError(
                    f"'{path}' lies where a run keeps its checkpoints, and no run of hfprobe wrote it. Nothing was "
                    "deleted: move it, or pass another --output_dir."
                )
    return found


def _is_own(folder: Path) -> bool:
    """Whether a run wrote this folder: a manifest or the model's configuration shows it where the name does not."""
    is_named_so = folder.name in (STAGING, TENSORBOARD_FOLDER, PROFILE_FOLDER)
    return is_named_so or (folder / MANIFEST_FILE).is_file() or bool(read_run(folder))


def check_overwriting(folder: Path, *, holds_run: bool, saves_model: bool) -> None:
    """Refuse an output folder in which a run would overwrite files that no run of hfprobe wrote.

    Args:
        saves_model: whether the run writes into the folder `model`; a link there would be followed.
    """
    found = []
    if not holds_run:
        names = (STATE_FILE, "train_results.json", "all_results.json", "config.yaml")
        found += [folder / name for name in names if os.path.lexists(folder / name)]
    model = folder / MODEL_FOLDER
    if saves_model and os.path.lexists(model):
        usable = model.is_dir() and not model.is_symlink()
        taken = usable and any(re.fullmatch(_MODEL, path.name) for path in model.iterdir())
        found += [] if usable and (not taken or _is_own(model)) else [model]
    if found:
        raise InputError(
            f"A run would write over '{found[0]}', which no run of hfprobe wrote. Move it, or pass another "
            "--output_dir."
        )


def delete_run(folder: Path) -> None:
    """Delete what a run wrote into its output folder; anything else stays.

    Raises:
        InputError: see `find_run_files`. Nothing was deleted then.
    """
    for file in sorted(find_run_files(folder), key=lambda file: file.name == RUN_FILE):  # last: it tells a run
        file.unlink()
    for entry in folder.iterdir():
        if RUN_FOLDERS.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink():
            for place in [*sorted(entry.rglob("*"), reverse=True), entry]:  # the innermost first
                if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
                    place.rmdir()


@contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Hold the lock of an output folder. The system releases it when the process ends, however it ends.

    Raises:
        InputError: another process holds it; its file cannot be written.
    """
    with ExitStack() as stack:
        try:
            held = stack.enter_context(locked(folder / LOCK_FILE, wait=False))
        except BlockingIOError as error:
            raise InputError(
                f"Another run is writing into '{folder}'. Wait until it has ended, or pass another --output_dir."
            ) from error
        except OSError as error:
            raise InputError(
                f"The lock '{folder / LOCK_FILE}' cannot be taken: {error.strerror or error}. Remove it, or pass "
                "another --output_dir."
            ) from error
        if not held:
            logger.warning("The file system of '%s' has no locks: do not start a second run there.", folder)
        yield


def check_places(
    folder: str | Path,
    *,
    flag: str,
    dataset: str | None = None,
    models: Sequence[Path] = (),
    hub_dir: str | Path | None = None,
    is_file: bool = False,
    classified: Iterable[str] = (),
) -> None:
    """Refuse a place for results in which images, models or other work of the user lie.

    Args:
        folder: or a file, with `is_file`, whose folder may hold what a folder of results may not.
        flag: that sets the place, for the message.
        dataset: hub id or local folder or file.
        models: model folders. The place may not lie inside one, because an evaluation refuses unknown files there, nor
            in the dataset that the model was trained on.
        hub_dir: if passed, the folder may hold neither it nor the working directory.
        classified: folders whose images are being classified.

    Raises:
        InputError: the place is or holds one of them, or lies inside a dataset, a model or a folder of `classified`.
    """
    own = f"Results would be mixed with other files: pass {flag} with a {'file' if is_file else 'folder'} of its own."
    outside = f"Results would be mixed with other files: pass {flag} with a path outside it."
    written = Path(folder).parent if is_file else folder  # a link in place of the file would be replaced
    for known in [dataset, *(read_run(model).get("dataset") for model in models)]:
        for number, place in enumerate(find_places(known)):  # the first is the dataset itself
            named = f"the dataset '{known}'"
            if _holds(folder, place):
                raise InputError(f"{flag} '{folder}' is or holds {named}. {own}")
            if _holds(place, written):
                inside = f"'{place}', which holds images of {named}" if number else named
                raise InputError(f"{flag} '{folder}' lies inside {inside}. {outside}")
    for searched in classified:
        if _holds(searched, written):
            raise InputError(f"{flag} '{folder}' is inside '{searched}', whose images are being classified. {outside}")
    for model in models:
        if _holds(model, written):
            raise InputError(f"{flag} '{folder}' is or lies inside the model folder '{model}'. {own}")
    if hub_dir is not None:
        for name, needed in (("the hub folder", hub_dir), ("the working directory", ".")):
            if _holds(folder, needed):
                raise InputError(f"{flag} '{folder}' is or holds {name} '{needed}'. {own}")


def _holds(outer: str | Path, inner: str | Path) -> bool:
    """Whether `inner` is `outer` or lies below it, links followed; either need not exist."""
    outer, inner = Path(os.path.realpath(outer)), Path(os.path.realpath(inner))
    # Names may differ in capitals only, where the file system does not tell them apart.
    return any(path == outer or _is_same(path, outer) for path in [inner, *inner.parents])


def _is_same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # it does not exist, or lies where this user may not look
        return False
