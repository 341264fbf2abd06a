"""The files beside the package agree with it."""

import ast
import configparser
import re
import sys
from pathlib import Path

import yaml

import hfprobe

ROOT = Path(__file__).parent.parent


def test_the_citation_names_the_version_and_the_licence_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert citation["version"] == hfprobe.__version__
    assert citation["license"] == setup["metadata"]["license"]
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors"} <= set(citation)


def test_files_that_the_contributing_guide_names_exist():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = {name for name in re.findall(r"`([\w./]+/[\w.]*)`", text) if not name.startswith("/")}
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_contributing_guide_explains_every_marker():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    markers = re.findall(r'^    "(\w+):', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(markers) >= 3
    assert not [marker for marker in markers if f"| `{marker}` |" not in text]


def test_the_tests_that_run_with_the_oldest_versions_exist():
    named = re.findall(r"tests/[\w/.]+", (ROOT / ".ci" / "oldest").read_text())
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


def test_setup_declares_what_the_package_imports():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = {re.match(r"[\w-]+", line)[0] for line in setup["options"]["install_requires"].split("\n") if line}
    imported = set()
    for path in (ROOT / "hfprobe").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    called = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    found = {called.get(name, name) for name in imported - set(sys.stdlib_module_names) - {"hfprobe"}}
    extras = {"pillow_heif", "onnx", "onnxruntime"}  # onnxscript is imported by torch
    assert found - extras == declared - {"tensorboard"}  # what torch.utils.tensorboard imports
