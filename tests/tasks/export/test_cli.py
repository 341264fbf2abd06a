import sys

import pytest

from helpers.exported import push
from hfprobe.tasks.export import extra

pytestmark = pytest.mark.usefixtures("narrow_network")


def test_without_the_extra_one_line_says_how_to_install_it(fails, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "onnxruntime" else name)
    expected = "An export needs onnxruntime. Install the extra: pip install 'hfprobe[export]'"
    assert fails("export.py", "--model", "simple-cnn") == expected


def test_bad_flags(fails):
    assert fails("export.py") == (
        "--model is missing. Pass a model folder or a name in the hub folder, such as simple-cnn."
    )
    assert fails("export.py", "--model", "x", "--chekc").startswith("Unknown argument '--chekc'. Did you mean --check?")
    assert fails("export.py", "--model", "x", "--check", "--quantize", "int8") == (
        "--check writes nothing, so --quantize has no effect. Leave one of them out."
    )
    assert fails("export.py", "--model", "x", "--max_loss", "-1") == (
        "argument --max_loss: '-1' is invalid; allowed: 0 to 100"
    )


def test_the_command_exports_and_then_checks(succeeds, fails, tmp_path, dataset_folder):
    for name in extra.PACKAGES:
        pytest.importorskip(name, reason="the extra export is not installed")
    folder = push(tmp_path / "hub", dataset_folder)
    assert fails("export.py", "--model", "simple-cnn", "--check").startswith("'hub/models--hfprobe--simple-cnn/snapsh")
    said = succeeds("export.py", "--model", "simple-cnn", "--max_eval_samples", 20)
    assert "classifier.onnx: 0 of 20 answers differ on test" in said
    assert said.splitlines()[-1] == f"Files: {folder.relative_to(tmp_path)}/onnx"
    assert said.startswith(succeeds("export.py", "--model", "hfprobe/simple-cnn", "--check").strip())


def test_help_imports_nothing_of_the_extra(succeeds, monkeypatch):
    for name in extra.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'hfprobe[export]'" in succeeds("export.py", "--help")
