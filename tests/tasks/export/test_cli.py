import sys

import pytest

from helpers.exported import push
from hfprobe.tasks.export import extra, runtime
from hfprobe.tasks.export.result import Export, check_export

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


@pytest.fixture
def fake_runtime(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("runtime")
    for name in runtime.CHECKSUMS:
        (folder / name).write_text(name)
    monkeypatch.setattr(runtime, "load_runtime", lambda: folder)


def test_a_page_is_made_of_an_intact_export_or_of_a_new_one(succeeds, tmp_path, dataset_folder, fake_runtime):
    for name in extra.PACKAGES:
        pytest.importorskip(name, reason="the extra export is not installed")
    files = push(tmp_path / "hub", dataset_folder) / "onnx"
    last = "Open my page/index.html in a browser, or serve it: python -m http.server --directory 'my page'"
    command = ("export.py", "--model", "simple-cnn", "--web", "my page")
    assert succeeds(*command).splitlines()[-2:] == [check_export(files.parent).sentences[-1], last]
    made = (files / Export.FILE).stat().st_mtime_ns
    assert succeeds(*command).splitlines() == [last]
    assert (files / Export.FILE).stat().st_mtime_ns == made
    assert len(succeeds(*command, "--max_eval_samples", 20).splitlines()) == 3  # the flag has an effect
    assert (files / Export.FILE).stat().st_mtime_ns > made


def test_a_wrong_folder_for_the_page_is_refused_before_anything_is_downloaded(
    fails, tmp_path, dataset_folder, monkeypatch
):
    for name in extra.PACKAGES:
        pytest.importorskip(name, reason="the extra export is not installed")
    monkeypatch.setattr(runtime, "load_runtime", lambda: pytest.fail("it was loaded"))
    folder = push(tmp_path / "hub", dataset_folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    assert fails("export.py", "--model", "simple-cnn", "--check", "--web", "page") == (
        "--check writes nothing, so --web has no effect. Leave one of them out."
    )
    assert fails("export.py", "--model", "simple-cnn", "--web", "mine") == (
        "--web 'mine' holds files that are not of an earlier web export, such as 'notes'. Pass a new folder."
    )
    assert fails("export.py", "--model", "simple-cnn", "--web", folder / "page").startswith(
        f"--web '{folder}/page' is or lies inside the model folder"
    )


def test_without_the_registry_a_page_is_refused_before_an_export_is_made(fails, tmp_path, dataset_folder, monkeypatch):
    for name in extra.PACKAGES:
        pytest.importorskip(name, reason="the extra export is not installed")
    push(tmp_path / "hub", dataset_folder)
    monkeypatch.setattr("hfprobe.data.cache.cache_folder", lambda: tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fails("export.py", "--model", "simple-cnn", "--web", "page") == (
        "ONNX Runtime Web cannot be downloaded from the npm registry: npm is not installed. Install npm, or run the "
        "command on a machine that reaches it and copy the folder."
    )


def test_help_imports_nothing_of_the_extra(succeeds, monkeypatch):
    for name in extra.PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'hfprobe[export]'" in succeeds("export.py", "--help")
