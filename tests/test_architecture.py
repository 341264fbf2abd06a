"""Who may import whom, in the package and in its tests."""

import ast
import graphlib
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "hfprobe"
# Each room may import those before it, and itself; what lies beside the rooms may import every one.
ROOMS = ["system", "statistics", "hub", "data", "models", "settings", "training", "pages", "cli", "tasks"]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_one_way():
    for path in PACKAGE.glob("*/**/*.py"):
        here = path.relative_to(PACKAGE).parts[0]
        for module in imports(path):
            top, _, inside = module.partition(".")
            if top == "hfprobe" and inside:
                rooms = [ROOMS.index(room) for room in (inside.split(".")[0], here)]
                assert rooms[0] <= rooms[1], f"{path.relative_to(PACKAGE)} imports {module}"


def test_no_imports_form_a_loop():
    paths = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.glob("*/**/*.py")  # hfprobe/__init__.py imports at first use
    }
    graph = {name: (paths.keys() & set(imports(path))) - {name} for name, path in paths.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the loop


def test_a_task_uses_of_another_task_its_result_only_except_decide_which_calls_whole_tasks():
    for path in PACKAGE.glob("tasks/*/*.py"):
        if path.parent.name == "decide" and path.stem in ("measure", "prepare", "page"):
            continue
        for module in imports(path):
            parts = module.split(".")
            if parts[:2] == ["hfprobe", "tasks"] and len(parts) > 3:
                assert parts[2] == path.parent.name or parts[3] == "result", f"{path.relative_to(PACKAGE)}: {module}"


def test_results_and_pages_name_no_torch():
    paths = [path for name in ("result", "page") for path in PACKAGE.glob(f"tasks/*/{name}.py")]
    for path in [*paths, *PACKAGE.glob("pages/*.py"), *PACKAGE.glob("statistics/*.py")]:
        assert not [module for module in imports(path) if module.split(".")[0] in ("torch", "transformers", "evaluate")]


def test_no_test_file_imports_another_or_conftest():
    for path in TESTS.rglob("*.py"):
        for module in imports(path):
            found = [part for part in module.split(".") if part == "conftest" or part.startswith("test_")]
            assert not found, f"{path.relative_to(TESTS)} imports {module}; share code in tests/helpers"


def test_each_folder_of_tests_is_a_room_and_each_file_in_it_is_named_after_a_module_or_a_part_of_one():
    for path in TESTS.glob("*/**/test_*.py"):
        folder, name = path.relative_to(TESTS).parent, path.stem.removeprefix("test_")
        module = PACKAGE / folder / name  # or a package
        parts = [module, module.with_name(name.rpartition("_")[0] or name)]  # test_local_push.py: a part of local.py
        found = [part for part in parts if part.is_dir() or part.with_suffix(".py").exists()]
        assert folder.name == "faults" or found, f"there is no {module}"
    assert {path.parent.name for path in TESTS.glob("*/*.py")} <= {*ROOMS, "helpers", "faults"}
