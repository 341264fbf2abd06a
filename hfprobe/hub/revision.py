"""One revision of a model in the local hub folder, and the check that its files are still those that were pushed."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hfprobe.system.errors import InputError
from hfprobe.system.files import sha256
from hfprobe.system.model_files import CONFIG_FILE, read_run


@dataclass(frozen=True)
class Revision:
    """One pushed state of a model."""

    name: str  # hfprobe/simple-cnn
    commit: str  # 40 hex digits
    path: Path  # the snapshot folder, which from_pretrained takes
    created: datetime
    is_main: bool


def blob_link(checksum: str) -> str:
    """The target of a link from a snapshot to a blob; relative, so that a hub folder can be moved."""
    return f"../../blobs/{checksum}"


def check_revision(revision: Revision) -> None:
    """Check that a revision holds exactly the files that were pushed, with their content.

    The content decides, not whether a file is a link: a hub folder may be copied or unpacked without links. Revisions
    of earlier versions have no list of checksums: there a link names the checksum of its file, and any other file must
    equal one of the blobs.

    Raises:
        InputError: a file was changed, removed or added; the first one is named.
    """
    repository = revision.path.parent.parent
    pushed = _read_checksums(repository / "sums" / revision.commit)
    for name in sorted({file.name for file in revision.path.iterdir()} | pushed.keys()):
        file = revision.path / name
        found = sha256(file) if file.is_file() else "none"
        if pushed:
            intact = pushed.get(name) == found
        elif file.is_symlink():
            intact = os.readlink(file) == blob_link(found)
        else:
            intact = (repository / "blobs" / found).is_file()
        if not intact:
            raise InputError(
                f"'{name}' of {revision.name}@{revision.commit[:12]} is damaged: it is not the file that was pushed. "
                "Use an older revision, or train and push again."
            )


def _read_checksums(file: Path) -> dict[str, str]:
    """File name -> SHA-256; empty if the revision has no list of checksums, or one that cannot be read."""
    try:
        lines = re.findall(r"^([0-9a-f]{64})  (.+)$", file.read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return {}
    return {name: checksum for checksum, name in lines}


def published_content(file: Path) -> str | bytes:
    """The path of a file to upload; of a config, its content without the folders above a local dataset.

    They are needed on this machine only, and the home folder in them tells the name of the user.
    """
    dataset = read_run(file.parent).get("dataset") if file.name == CONFIG_FILE else None
    if dataset is None or not os.path.isabs(dataset):
        return str(file)
    config = json.loads(file.read_text())
    config["run"]["dataset"] = os.path.basename(dataset)
    return f"{json.dumps(config, indent=2, sort_keys=True)}\n".encode()
