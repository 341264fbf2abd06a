"""The files beside the package agree with it."""

import configparser
import re
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
