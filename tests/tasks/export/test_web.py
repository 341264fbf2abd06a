import base64
import gzip
import json
import re
from dataclasses import replace

import pytest

from helpers.exported import push
from helpers.with_onnx import onnx
from hfprobe.models.thresholds import Thresholds
from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.errors import InputError
from hfprobe.system.records import to_json
from hfprobe.tasks.export import runtime, web
from hfprobe.tasks.export.result import CLASSIFIER, INT8_CLASSIFIER, check_export, find_export
from hfprobe.tasks.export.web import FILES, MODEL, PAGE, RUNTIME, WebExport, check_target, render_page, write_web

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, dataset_folder, narrow_network):
    """The folder of a model with its export."""
    from hfprobe import load

    folder = push(tmp_path_factory.mktemp("hub"), dataset_folder)
    load(folder).export()
    return folder


@pytest.fixture(scope="module")
def fake_runtime(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runtime")
    for name in runtime.CHECKSUMS:
        (folder / name).write_text(name)
    return folder


def write(target, exported, fake_runtime):
    return write_web(target, export=check_export(exported), model=exported, exported=CLASSIFIER, runtime=fake_runtime)


def test_the_folder_holds_the_exported_file_and_its_runtime(exported, fake_runtime, tmp_path):
    record = write(tmp_path / "page", exported, fake_runtime)
    assert {path.name for path in (tmp_path / "page").iterdir()} == {*FILES, WebExport.FILE}
    assert list(tmp_path.iterdir()) == [tmp_path / "page"]
    assert WebExport.load(tmp_path / "page") == record
    packed = {
        name: gzip.decompress(base64.b64decode(text))
        for file in (RUNTIME, MODEL)
        for name, text in re.findall(r'const PACKED_(\w+) = "(.*?)";\n', (tmp_path / "page" / file).read_text())
    }
    assert packed == {
        "GLUE": runtime.GLUE.encode(),
        "WASM": runtime.WASM.encode(),
        "MODEL": (exported / "onnx" / CLASSIFIER).read_bytes(),
    }


def test_the_same_model_gives_the_same_bytes_and_an_earlier_page_is_replaced(exported, fake_runtime, tmp_path):
    write(tmp_path / "one", exported, fake_runtime)
    first = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    (tmp_path / "one" / MODEL).write_text("of an earlier model")
    write(tmp_path / "one", exported, fake_runtime)
    assert {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()} == first
    assert list(tmp_path.iterdir()) == [tmp_path / "one"]


def test_other_files_are_not_replaced(exported, fake_runtime, tmp_path):
    write(tmp_path / "page", exported, fake_runtime)
    (tmp_path / "page" / "notes.txt").touch()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / PAGE).touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("page")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    for name, found in {
        "page": "holds files that are not of an earlier web export, such as 'notes.txt'.",
        "mine": "holds files that are not of an earlier web export, and no valid web.json.",
        "file": "is a file.",
        "link": "is a link.",
    }.items():
        with pytest.raises(InputError, match=re.escape(f"--web '{tmp_path / name}' {found} Pass a new folder.")):
            check_target(tmp_path / name)
    with pytest.raises(InputError, match=f"the folder of --web '{tmp_path}/file' cannot be written: "):
        check_target(tmp_path / "file" / "page")


def test_a_failure_leaves_the_earlier_page(exported, fake_runtime, tmp_path, monkeypatch):
    write(tmp_path / "page", exported, fake_runtime)
    before = {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()}
    monkeypatch.setattr(web, "pack", lambda files: pytest.fail("interrupted"))
    with pytest.raises(pytest.fail.Exception):
        write(tmp_path / "page", exported, fake_runtime)
    assert {path.name: path.read_bytes() for path in (tmp_path / "page").iterdir()} == before
    assert list(tmp_path.iterdir()) == [tmp_path / "page"]


def facts_of(page):
    return json.loads(re.search(r"const FACTS = (.*);", page)[1])


def test_the_page_has_the_threshold_of_the_probabilities_that_it_shows(exported):
    export = check_export(exported)
    plain, calibrated = (
        [ChosenThreshold(accuracy, value, 9, 9) for accuracy in (0.9, 0.95, 0.98, 0.99)] for value in (0.6, 0.7)
    )
    metadata = web.read_facts((exported / "onnx" / CLASSIFIER).read_bytes())
    assert facts_of(render_page(export, metadata))["threshold"] is None
    with_thresholds = metadata | {"thresholds": json.dumps(to_json(Thresholds(plain, calibrated)))}
    assert facts_of(render_page(export, with_thresholds))["threshold"] == 0.7
    page = render_page(replace(export, temperature=None), with_thresholds)
    assert facts_of(page)["threshold"] == 0.6
    assert "not calibrated" in page


def test_markup_in_names_is_text_and_the_policy_allows_no_network(exported):
    export = replace(check_export(exported), model="<script>x</script>", class_names=["</script><script>y", '"'])
    page = render_page(export, web.read_facts((exported / "onnx" / CLASSIFIER).read_bytes()))
    assert facts_of(page)["labels"] == export.class_names
    assert page.count("<script>") == page.count("</script>") == 2
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'; script-src 'self' blob: 'wasm-unsafe-eval' 'sha256-")
    assert "connect-src" not in policy  # default-src counts
    assert "http" not in policy


def test_an_intact_export_is_found_by_its_file(exported, tmp_path):
    assert find_export(exported, CLASSIFIER) == check_export(exported)
    assert find_export(exported, INT8_CLASSIFIER) is None
    assert find_export(tmp_path, CLASSIFIER) is None


def test_metadata_of_a_graph_are_read():
    graph = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(graph, {"precision": "fp32"})
    assert web.read_facts(graph.SerializeToString()) == {"precision": "fp32"}
