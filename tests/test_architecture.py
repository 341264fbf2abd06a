"""The arrows of the house: who may import whom."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hfprobe"
# Lower may not import higher. Modules on one level are leaves to each other.
LEVELS = [
    {"errors", "markdown", "process"},
    {"files", "interruptible", "ranges", "schedules"},
    {"cli"},
    {"checkpoints", "provenance", "hub", "metrics", "optimizers", "output_folder", "preflight", "statistics"},
    {"progress", "results"},
    {"hub_client"},
    {"data"},
    {"models"},
    {"run_parser"},
    {"config"},
    {"run_folder"},
    {"callbacks", "sanity"},
    {"trainer"},
    {"training", "evaluation"},
    {"comparison", "label_efficiency"},
    {"profiling", "reporting"},
]


def room(path_or_module):
    return path_or_module.split(".")[1] if path_or_module.count(".") else "__init__"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "hfprobe":
                yield from (f"hfprobe.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    for module in imports(path):
        there = room(module) if module.startswith("hfprobe") else None
        if there in (None, "__init__", here) or here == "__init__":
            continue
        assert level[there] < level[here], f"{here} imports {there}"


def test_reporting_names_no_torch():
    for path in [*(PACKAGE / "reporting").glob("*.py"), PACKAGE / "results.py"]:
        assert not [module for module in imports(path) if module.split(".")[0] in ("torch", "transformers", "evaluate")]
