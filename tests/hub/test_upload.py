import re
import runpy
import sys
from pathlib import Path

import pytest

from helpers.hub_content import LOG_IN, go_offline, logged, snapshot_files
from helpers.hub_server import make_user
from helpers.models import cat_model
from hfprobe.hub import local as hub
from hfprobe.hub import upload
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError, MachineError

ROOT = Path(__file__).parents[2]


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
        upload.check_upload(push_arguments(**values))
    assert str(error.value) == expected
    assert not [path for method, path in server.requests if method != "GET"]


def test_upload_with_expired_token_offline_or_to_a_read_only_repository_is_refused(server, monkeypatch):
    def refused(**values):
        with pytest.raises(InputError) as error:
            upload.check_upload(push_arguments(**values))
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
    repository = upload.check_upload(arguments)
    (revision.path / "onnx").mkdir()
    (revision.path / "onnx" / "model.onnx").write_text("an export")
    page = upload.upload_revision(revision, repository=repository, arguments=arguments)
    assert page == f"{server.url}/acme/cats/tree/next"
    there = server.repositories["models"]["acme/cats"]
    local = {file.name: file.read_bytes() for file in revision.path.iterdir() if file.is_file()}
    assert "model.safetensors" in local
    local["onnx/model.onnx"] = b"an export"
    assert {name: content for name, content in there.branches["next"].items() if name != ".gitattributes"} == local
    assert there.private
    assert [sorted(commit) for commit in there.commits] == [sorted(local)]
    assert there.branches["main"] == {}
    assert set(server.tokens[-8:]) <= {"hf_mine", None}


def test_fine_grained_token_of_one_repository_can_write_to_it(server):
    server.users["hf_fine"] = make_user(**FINE)
    assert upload.check_upload(push_arguments(hub_token="hf_fine", hub_model_id="other")) == "someone/other"


@pytest.mark.parametrize("where", ["/api/repos/create", "/commit/main"])
def test_error_of_a_failed_upload_names_the_revision_and_the_command_to_retry(server, revision, where):
    arguments = push_arguments(hub_token="hf_good", hub_private_repo=True)
    server.fail(where, method="POST", status=403, message="Quota exceeded")
    with pytest.raises(MachineError) as error:
        upload.upload_revision(revision, repository="someone/cats", arguments=arguments)
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
    # The folder of the dataset, which may name the user, stays here.
    local["config.json"] = local["config.json"].replace(str(dataset_folder).encode(), b"small")
    assert there.branches["main"] == local
    assert not [name for name, content in local.items() if str(dataset_folder).encode() in content]
    assert [sorted(commit) for commit in there.commits] == [sorted(local)]
    assert server.requests.count(("POST", "/api/repos/create")) == 2  # by the two uploads, not by Trainer
    assert b'model="someone/small-cnn-fast-seed42"' in local["README.md"]
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.name in ("README.md", "training_args.bin")]


def test_train_checks_the_upload_permission_before_any_image_is_loaded(server, train, monkeypatch):
    monkeypatch.setattr("hfprobe.data.splits.images.load_images", lambda *_, **__: pytest.fail("images were loaded"))
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
