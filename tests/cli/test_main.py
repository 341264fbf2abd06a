"""The console command. Imports hfprobe.cli.main inside of tests: its import changes what Ctrl-C does."""

import configparser
import runpy
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from textwrap import dedent

import pytest

import hfprobe
from helpers.results import make_result

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run `hfprobe` in this process, in a folder of its own; its exit code, stdout and stderr."""

    def run(*arguments, program="/usr/bin/hfprobe"):
        from hfprobe.cli.main import main

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code, *capsys.readouterr()

    return run


def test_help_lists_each_command_with_the_first_line_of_its_docstring(call):
    from hfprobe.cli.main import find_commands

    code, said, _ = call("--help")
    assert (code, call("-h")) == (0, (0, said, ""))
    lines = [line.split(maxsplit=1) for line in said.split("commands:\n")[1].split("\n\n")[0].splitlines()]
    assert lines == [
        [name, import_module(f"{package}.cli").__doc__.splitlines()[0]] for name, package in find_commands().items()
    ]
    assert call() == (2, "", said)


def test_version(call):
    assert call("--version") == (0, f"hfprobe {hfprobe.__version__}\n", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian", "Unknown command 'trian'. Did you mean train? All commands: audit, card, compare, "),
        ("sanity", "Unknown command 'sanity'. Did you mean sanity-check? All commands: audit, card, compare, "),
        ("--model", "Unknown command '--model'. All commands: audit, card, compare, "),
        ("", "The first argument has an empty value. "),
        ("x" * 5000, "Unknown command 'xxx"),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest(call, name, message):
    code, said, error = call(name, "--model", "cnn")
    assert (code, said) == (2, "")
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
    assert len(error) < 500


def help_of(program, capsys):
    """Program and the rest of a help text, whose first paragraph breaks its lines where the program's name ends."""
    with pytest.raises(SystemExit) as stopped:
        program()
    assert stopped.value.code == 0
    usage, rest = capsys.readouterr().out.split("\n\n", 1)
    return " ".join(usage.split()).removeprefix("usage: ").removeprefix("Usage: "), rest


@pytest.mark.parametrize("name", ["train", "eval", "compare", "profile", "label-efficiency", "sanity-check"])
def test_help_of_a_command_is_that_of_its_script_apart_from_the_programs_name(name, monkeypatch, capsys):
    from hfprobe.cli.main import main

    monkeypatch.setattr(sys, "argv", ["/usr/bin/hfprobe", name, "--help"])
    console, flags = help_of(main, capsys)
    script = str(ROOT / "scripts" / f"{'profile_models' if name == 'profile' else name.replace('-', '_')}.py")
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    typed, same_flags = help_of(lambda: runpy.run_path(script, run_name="__main__"), capsys)
    assert flags == same_flags
    assert console.split() == [*f"hfprobe {name}".split(), *typed.removeprefix(f"python {script}").split()]


def test_a_command_runs_and_names_itself_in_hints(call, tmp_path):
    for seed, name in enumerate(("a", "b")):
        make_result(seed=seed).save(tmp_path / name)
    code, said, _ = call("compare", "a", "b", "--report_dir", "out")
    assert code == 0
    assert "Page: out/comparison.html" in said
    assert "Speed and memory: hfprobe profile <model> ..., then this command with --profile" in said
    code, said, _ = call("eval", "--report_only", "--report_dir", "a", program=f"{ROOT}/hfprobe/__main__.py")
    assert "Compare: python -m hfprobe compare a <another report folder>" in said
    assert call("compare", "a")[2].endswith("allowed: two or more that hfprobe eval wrote.\n")
    for name in ("label-efficiency", "label_efficiency"):
        assert call(name, "--frobnicate") == (
            2,
            "",
            "error: Unknown argument '--frobnicate'. All flags: hfprobe label-efficiency --help\n",
        )


def test_help_and_wrong_flags_import_neither_torch_nor_transformers():
    program = """
        import sys
        from hfprobe.cli.main import main
        for arguments in (["--help"], ["--version"], ["trian"], ["compare", "--help"], ["eval", "--modle"]):
            sys.argv = ["hfprobe", *arguments]
            try:
                main()
            except SystemExit:
                pass
        assert not {"torch", "transformers", "datasets"} & set(sys.modules)
        """
    done = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_m_hfprobe_and_the_entry_point_are_the_console_command(monkeypatch, capsys):
    from hfprobe.cli.main import main

    monkeypatch.setattr(sys, "argv", ["hfprobe", "--version"])
    with pytest.raises(SystemExit):
        runpy.run_module("hfprobe", run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out == f"hfprobe {hfprobe.__version__}\n"
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, _, target = setup["options.entry_points"]["console_scripts"].strip().partition(" = ")
    assert name == "hfprobe"
    assert metadata.EntryPoint(name, target, "console_scripts").load() is main


def test_a_folder_of_tasks_is_a_command(call, tmp_path, monkeypatch):
    added = tmp_path / "count_words"
    added.mkdir()
    (added / "__init__.py").write_text('"""Count words."""')
    (added / "cli.py").write_text("import sys\n\ndef main():\n    print(len(sys.argv) - 1, 'words')\n")
    tasks = import_module("hfprobe.tasks")
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    assert "  count-words       Count words.\n" in call("--help")[1]
    assert call("count-words", "one", "two")[1] == "2 words\n"
