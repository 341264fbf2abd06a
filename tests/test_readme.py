"""README's Python block runs as it stands, on small images; each of its commands is one that the scripts accept."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import PIL.Image
import pytest

from hfprobe.cli.run_flags import parse_runs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    """The commands of README's shell blocks that start a script, without their comments."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    return [line for line in text.splitlines() if "scripts/" in line and not line.startswith("#")]


def test_python_block(tmp_path, monkeypatch, dataset_folder, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # Here are neither the hub nor pretrained weights.
    block = block.replace('"uoft-cs/cifar10"', repr(str(dataset_folder)))
    block = block.replace('backbone="resnet18.a1_in1k"', 'backbone="resnet10t", backbone_weights="random"')
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (60, 40)).save("dog.jpg")
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "simple-cnn" in printed
    assert re.search(r"^dog\.jpg: (cat|dog) \(\d+\.\d%\)$", printed, re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_scripts_accept_the_command(command, monkeypatch, tmp_path):
    words = shlex.split(command, comments=True)
    at = next(number for number, word in enumerate(words) if word.startswith("scripts/"))
    script, flags = words[at], words[at + 1 :]
    assert (ROOT / script).is_file()
    if "--help" in flags:
        return
    if script != "scripts/train.py":
        runpy.run_path(str(ROOT / script))["make_parser"]().parse_known_args(flags)
        return
    if "--config" in flags:
        (tmp_path / "config.yaml").write_text("epochs: 2\n")
        flags[flags.index("--config") + 1] = str(tmp_path / "config.yaml")
    monkeypatch.setattr(sys, "argv", [script, *flags])
    assert parse_runs()
