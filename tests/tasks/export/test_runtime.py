import hashlib
import tarfile

import pytest

from helpers.archives import write_archive
from hfprobe.data import cache
from hfprobe.system.errors import InputError
from hfprobe.tasks.export import runtime
from hfprobe.tasks.export.runtime import CHECKSUMS, PACKAGE, load_runtime

CONTENT = {name: name.encode() for name in CHECKSUMS}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry whose package holds CONTENT and another file, and an empty cache; the number of downloads."""
    downloads = []

    def download(package, folder):
        downloads.append(package)
        members = {f"package/dist/{name}": content for name, content in {**CONTENT, "ort.all.js": b"large"}.items()}
        return write_archive(folder / "a.tgz", [(name, inside, tarfile.REGTYPE) for name, inside in members.items()])

    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(runtime, "download_package", download)
    return downloads


def use_checksums(monkeypatch):
    for name, content in CONTENT.items():
        monkeypatch.setitem(CHECKSUMS, name, hashlib.sha256(content).hexdigest())


def test_only_the_files_that_a_page_needs_are_kept_and_downloaded_once(registry, monkeypatch):
    use_checksums(monkeypatch)
    for _ in range(2):
        folder = load_runtime()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert registry == [PACKAGE]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_download_with_a_wrong_checksum_keeps_nothing(registry, tmp_path):
    with pytest.raises(InputError, match=r"^Wrong checksum for ort\.wasm\.min\.js of onnxruntime-web@1.*was kept"):
        load_runtime()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_named_with_the_remedy(registry, monkeypatch):
    use_checksums(monkeypatch)
    folder = load_runtime()
    (folder / runtime.WASM).unlink()
    with pytest.raises(InputError, match=rf"no such file, expected .* Remove the folder '{folder}', and run the"):
        load_runtime()


def test_without_npm_one_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"npm is not installed\. Install npm, or run the command on a machine that"):
        load_runtime()
    assert list((tmp_path / "cache").iterdir()) == []
