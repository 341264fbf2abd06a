"""README's Python block runs as it stands, on small images; each of its commands is one that hfprobe accepts."""

import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import PIL.Image
import pytest

from hfprobe.cli.run_flags import parse_runs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands():
    """The commands of README's shell blocks that start a script or `hfprobe`."""
    text = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    return [line for line in text.splitlines() if re.match(r"[^#]*\b(scripts/|hfprobe [a-z])", line)]


def test_python_block(tmp_path, monkeypatch, dataset_folder, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    # Here are neither the hub nor pretrained weights.
    block = block.replace('"uoft-cs/cifar10"', repr(str(dataset_folder)))
    block = block.replace('backbone="resnet18.a1_in1k"', 'backbone="test_byobnet", backbone_weights="random"')
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (60, 40)).save("dog.jpg")
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "simple-cnn" in printed
    assert re.search(r"^dog\.jpg: (cat|dog) \(\d+\.\d%\)$", printed, re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_the_command_is_accepted(command, monkeypatch, tmp_path):
    from hfprobe.cli.main import find, find_commands

    words = shlex.split(command, comments=True)
    at = next(number for number, word in enumerate(words) if word.startswith("scripts/") or word == "hfprobe")
    if words[at] == "hfprobe":
        name, flags = find(words[at + 1]), words[at + 2 :]
    else:
        assert (ROOT / words[at]).is_file()
        name, flags = find(Path(words[at]).stem.removesuffix("_models")), words[at + 1 :]
    if "--help" in flags:
        return
    if name != "train":
        import_module(f"{find_commands()[name]}.cli").make_parser().parse_known_args(flags)
        return
    if "--config" in flags:
        (tmp_path / "config.yaml").write_text("epochs: 2\n")
        flags[flags.index("--config") + 1] = str(tmp_path / "config.yaml")
    monkeypatch.setattr("hfprobe.settings.run_config.pin_teacher", lambda options, **_: options)  # none is trained here
    monkeypatch.setattr(sys, "argv", ["train", *flags])
    assert parse_runs()
