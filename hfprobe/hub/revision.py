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
from hfprobe.system.model_files import CONFIG_FILE, EXPORT_FOLDER, read_run


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

    The content decides, not whether a file is a link: a hub folder may be copied or unpacked without links. The folder
    of an export is made from these files later and has checksums of its own: see `hfprobe.hub.exports`.

    Raises:
        InputError: a file was changed, removed or added; the first one is named. The list of checksums is missing.
    """
    what, remedy = f"{revision.name}@{revision.commit[:12]}", "Use an older revision, or train and push again."
    checksums = revision.path.parent.parent / "sums" / revision.commit
    try:
        lines = re.findall(r"^([0-9a-f]{64})  (.+)$", checksums.read_text(), re.MULTILINE)
    except (OSError, ValueError) as error:
        raise InputError(f"The checksums of {what} in '{checksums}' cannot be read. {remedy}") from error
    pushed = {name: checksum for checksum, name in lines}
    found = {file.name for file in revision.path.iterdir() if not (file.name == EXPORT_FOLDER and file.is_dir())}
    for name in sorted(found | pushed.keys()):
        file = revision.path / name
        if not file.is_file() or pushed.get(name) != sha256(file):
            raise InputError(f"'{name}' of {what} is damaged: it is not the file that was pushed. {remedy}")


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
