import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from helpers.models import CARD, cat_model, save_model
from hfprobe.hub.local import push_model

ROOT = Path(__file__).parents[3]


@pytest.fixture
def hub(tmp_path):
    """A hub folder with two models."""
    for name in ("simple-cnn", "simple-cnn-photos"):
        model, processor = cat_model()
        push_model(model=model, processor=processor, hub_dir=tmp_path / "hub", name=name, card=CARD)
    return tmp_path / "hub"


def test_wrong_flags_are_one_line(fails, tmp_path):
    for port in ("65536", "-1", "x"):
        message = f"argument --port: '{port}' is invalid; allowed: a whole number, 0 to 65,535 (0: a free port)"
        assert fails("demo.py", "--port", port) == message
    assert fails("demo.py", "--models", "none").startswith("No model 'none': neither a folder nor a name in the hub")
    assert fails("demo.py") == (
        "The hub folder 'hub' has no model. Pass --models with model folders, or train one: "
        f"python {ROOT}/scripts/train.py --model cnn"
    )
    (tmp_path / "file").touch()
    assert fails("demo.py", "--feedback", "file/kept").startswith("--feedback 'file/kept' cannot be written: ")


def test_feedback_is_not_mixed_with_models(fails, tmp_path):
    save_model(tmp_path / "model")
    message = fails("demo.py", "--models", "model", "--feedback", "model/kept")
    assert message.startswith("--feedback 'model/kept' is or lies inside the model folder 'model'.")


def test_a_port_in_use_is_one_line(fails, hub):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert fails("demo.py", "--port", port) == (
            f"--port {port} cannot be listened on: Address already in use. Pass another port, or 0 for a free one."
        )


@pytest.mark.slow
def test_all_models_of_the_hub_folder_are_served_until_ctrl_c(hub, tmp_path):
    process = subprocess.Popen(
        [sys.executable, ROOT / "scripts" / "demo.py", "--port", "0"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("Open http://127.0.0.1:")
    page = urllib.request.urlopen(line.split()[1], timeout=20).read().decode()
    assert "<bdi>simple-cnn</bdi>, <bdi>simple-cnn-photos</bdi>" in page
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said, error) == (130, "", "Interrupted. To start again, run the same command.\n")
    assert not (tmp_path / "demo-feedback").exists()
