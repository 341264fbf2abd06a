"""A folder of static files that classifies pictures in a browser: the page, the exported model and its runtime."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import onnx

from hfprobe.models.thresholds import Thresholds
from hfprobe.pages.environment import make_environment
from hfprobe.pages.policy import name_parts
from hfprobe.system.errors import InputError
from hfprobe.system.files import check_writable, explain_full_disk, staging_folder, sync
from hfprobe.system.model_files import EXPORT_FOLDER
from hfprobe.system.ranges import USUAL_ACCURACY
from hfprobe.system.records import RecordFile
from hfprobe.tasks.export.result import Export
from hfprobe.tasks.export.runtime import GLUE, PACKAGE, SCRIPT, WASM

PAGE, LICENCE = "index.html", "LICENSE-onnxruntime-web.txt"
# Scripts that hold a file as text: browsers load scripts beside a page that was opened as a file, and no other files.
RUNTIME, MODEL = "runtime.js", "model.js"
FILES = (PAGE, SCRIPT, RUNTIME, MODEL, LICENCE)


@dataclass(frozen=True)
class WebExport(RecordFile):
    """What such a folder holds, by which the next command recognises that it may replace it.

    Attributes:
        model, revision: that the page runs.
        exported: name of the ONNX file in the export; `checksum`: its SHA-256.
        runtime: the npm package.
    """

    FILE: ClassVar[str] = "web.json"
    WHAT: ClassVar[str] = "web export"
    REMEDY: ClassVar[str] = "Write it: hfprobe export --model <name> --web <folder>"

    model: str
    revision: str
    exported: str
    checksum: str
    runtime: str


def check_target(folder: Path) -> None:
    """Check that a folder can be written as a whole: it does not exist, is empty, or is an earlier web export.

    Raises:
        InputError: it is something else, or its parent folder cannot be written to.
        MachineError: the disk is full.
    """
    check_writable(folder.parent, flag="the folder of --web")
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"--web '{folder}' is a {'link' if folder.is_symlink() else 'file'}. Pass a new folder.")
    found = {path.name for path in folder.iterdir()}
    others = sorted(found - {*FILES, WebExport.FILE})
    if others or (found and WebExport.find(folder) is None):
        named = f"such as '{others[0]}'" if others else f"and no valid {WebExport.FILE}"
        raise InputError(
            f"--web '{folder}' holds files that are not of an earlier web export, {named}. Pass a new folder."
        )


def write_web(folder: Path, *, export: Export, model: Path, exported: str, runtime: Path) -> WebExport:
    """Write the folder, or replace it, as a whole.

    Args:
        folder: as `check_target` allows it.
        export: of the model in the folder `model`.
        exported: name of the ONNX file that the page runs.
        runtime: folder of the files of `load_runtime`.

    Raises:
        InputError: see `check_target`.
        MachineError: the disk is full; what was there before is intact.
    """
    source = model / EXPORT_FOLDER / exported
    graph = source.read_bytes()
    record = WebExport(export.model, export.revision, exported, export.files[exported], PACKAGE.name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (
        explain_full_disk("The page", folder, kept="Nothing was changed."),
        staging_folder(folder.parent, prefix=".web-") as staging,
    ):
        files = staging / "new"
        files.mkdir()
        packed = {"GLUE": (runtime / GLUE).read_bytes(), "WASM": (runtime / WASM).read_bytes()}
        (files / PAGE).write_text(render_page(export, read_facts(graph)), encoding="utf-8")
        shutil.copyfile(runtime / SCRIPT, files / SCRIPT)
        (files / RUNTIME).write_text(pack(packed), encoding="ascii")
        (files / MODEL).write_text(pack({"MODEL": graph}), encoding="ascii")
        shutil.copyfile(Path(__file__).parent / "templates" / LICENCE, files / LICENCE)
        record.save(files)
        for file in [*files.iterdir(), files]:
            sync(file)
        check_target(folder)  # again: the export may have taken minutes
        if folder.is_dir():
            os.rename(folder, staging / "old")
        os.rename(files, folder)
        sync(folder.parent)
    return record


def pack(files: dict[str, bytes]) -> str:
    """A script with one constant PACKED_<name> for each file: its gzip compression in base64."""
    return "".join(
        f'const PACKED_{name} = "{base64.b64encode(gzip.compress(content, mtime=0)).decode()}";\n'
        for name, content in files.items()
    )


def read_facts(graph: bytes) -> dict[str, str]:
    """What the metadata of an exported file say."""
    return {one.key: one.value for one in onnx.load_model_from_string(graph).metadata_props}


def render_page(export: Export, metadata: dict[str, str]) -> str:
    """The page, with a policy that lets it reach no network.

    Args:
        metadata: of the ONNX file that it runs.
    """
    thresholds = Thresholds.parse(json.loads(metadata["thresholds"]))
    calibrated = export.temperature is not None
    chosen = [] if thresholds is None else thresholds.chosen(temperature=calibrated)
    facts = {
        "model": export.model,
        "revision": export.revision,
        "precision": metadata["precision"],
        "labels": export.class_names,
        "calibrated": calibrated,
        "accuracy": USUAL_ACCURACY,
        "threshold": next((one.threshold for one in chosen if one.accuracy == USUAL_ACCURACY), None),
        "runtime": PACKAGE.name,
        "scripts": [SCRIPT, RUNTIME, MODEL],
    }
    text = make_environment(__file__, markdown=False).get_template("web.html.j2").render(facts=facts)
    charset = '<meta charset="utf-8">'
    policy = f'<meta http-equiv="Content-Security-Policy" content="{make_policy(text)}">'
    return text.replace(charset, f"{charset}\n{policy}", 1)


def make_policy(text: str) -> str:
    """Only the scripts and styles of the page, and those beside it; pictures from memory; no network."""
    scripts, styles = (name_parts(text, tag) for tag in ("script", "style"))
    return (
        f"default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval' {scripts}; style-src {styles}; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
