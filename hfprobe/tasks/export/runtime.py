"""ONNX Runtime Web, which runs a model in a browser: from the npm registry once, then from the cache."""

from __future__ import annotations

import shutil
from pathlib import Path

from hfprobe.data import cache
from hfprobe.data.npm import Package, download_package, unpack
from hfprobe.system.errors import InputError
from hfprobe.system.files import sha256, staging_folder

PACKAGE = Package(
    "onnxruntime-web@1.30.0",
    33_106_585,
    what="ONNX Runtime Web",
    remedy="run the command on a machine that reaches it and copy the folder",
)
# The interface, and the smallest of the package's builds of the runtime, which has the processor only; file -> SHA-256.
SCRIPT, GLUE, WASM = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
CHECKSUMS = {
    SCRIPT: "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    GLUE: "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


def load_runtime() -> Path:
    """The folder of SCRIPT, GLUE and WASM in the cache; they are downloaded with npm (33 MB) if they are not there.

    Raises:
        InputError: npm is missing or cannot download; the archive is damaged; a checksum is wrong.
        InputError, MachineError: the cache cannot be written.
    """
    target = cache.cache_folder() / PACKAGE.folder_name
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with staging_folder(target.parent, prefix="runtime-") as staging:
                unpack(download_package(PACKAGE, staging), staging)
                files = staging / "files"
                files.mkdir()
                for name in CHECKSUMS:
                    shutil.copyfile(staging / "package" / "dist" / name, files / name)
                _check(files, remedy="Nothing was kept. Try again.")
                if not target.is_dir():  # another process may have finished first
                    files.rename(target)
        except OSError as error:
            raise cache.cannot_keep(PACKAGE.what, target.parent, error) from error
    _check(target, remedy=f"Remove the folder '{target}', and run the command again.")
    return target


def _check(folder: Path, *, remedy: str) -> None:
    """Compare the files with their checksums.

    Raises:
        InputError: one is missing or differs.
    """
    for name, expected in CHECKSUMS.items():
        found = f"SHA-256 {sha256(folder / name)}" if (folder / name).is_file() else "no such file"
        if found != f"SHA-256 {expected}":
            raise InputError(f"Wrong checksum for {name} of {PACKAGE.name}: {found}, expected {expected}. {remedy}")
