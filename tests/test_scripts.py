"""The commands as a user types them."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from helpers.results import make_result
from hfprobe.cli import label_efficiency
from hfprobe.models import available_models

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


def run(*command, cwd=ROOT):
    environment = os.environ | {"HF_DATASETS_CACHE": str(cwd / "cache")} if cwd != ROOT else os.environ
    return subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )


@pytest.fixture
def fails(monkeypatch, capsys, tmp_path):
    """Run a script in this process; its one line on stderr. Nothing may be left in the working folder."""

    def call(script, *arguments, code=2):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        assert stopped.value.code == code
        assert sorted(tmp_path.rglob("*")) == before
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("error: ")
        assert "Traceback" not in "".join(lines)
        return lines[-1].removeprefix("error: ")

    return call


@pytest.fixture
def succeeds(monkeypatch, capsys, tmp_path):
    """Run a script in this process, in a folder of its own; what it prints."""

    def call(script, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "scripts" / script), run_name="__main__")
        assert stopped.value.code == 0
        return capsys.readouterr().out

    return call


def test_each_script_is_a_door_to_the_command_of_the_same_name():
    from hfprobe.cli.main import COMMANDS  # here: its import changes what Ctrl-C does

    doors = {"profile": "profile_models.py"}
    assert sorted(doors.get(name, f"{name.replace('-', '_')}.py") for name in COMMANDS) == SCRIPTS
    for name, (module, sentence) in COMMANDS.items():
        path = ROOT / "scripts" / doors.get(name, f"{name.replace('-', '_')}.py")
        assert len(path.read_text().splitlines()) <= 10
        script, module = runpy.run_path(str(path)), import_module(module)
        assert script["main"] is module.main
        assert script["__doc__"] == module.__doc__.splitlines()[0] == sentence


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    done = run(ROOT / "scripts" / script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("usage: ", "Usage: "))


@pytest.mark.slow
def test_train_then_the_command_it_prints_then_the_same_again(fails, dataset_folder, tmp_path):
    train = run(
        ROOT / "scripts" / "train.py", "--model", "cnn", "--dataset", dataset_folder, "--epochs", 1, cwd=tmp_path
    )
    assert train.returncode == 0, train.stderr
    assert "Validation accuracy " in train.stdout
    assert "(n = 40)" in train.stdout
    command = next(line.removeprefix("Report:").strip() for line in train.stdout.splitlines() if "Report:" in line)
    python, script, *arguments = shlex.split(command)
    assert (python, script) == ("python", str(ROOT / "scripts" / "eval.py"))
    evaluated = run(ROOT / script, *arguments, cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    assert "(n = 60)" in evaluated.stdout
    names = {path.name for path in (tmp_path / "reports" / "cnn-small").iterdir()}
    assert names == {
        "metrics.json", "predictions.parquet", "mistakes.parquet", "per_class_metrics.csv",
        "classification_report.txt", "confusion_matrix.png", "report.html",
    }  # fmt: skip
    assert fails("train.py", "--model", "cnn", "--dataset", dataset_folder) == (
        "The output folder 'runs/small-cnn-fast-seed42' holds another run. Continue it: --resume. "
        "Delete it: --overwrite. Keep it: --output_dir with another name."
    )


def test_seeds_are_trained_in_turn_and_finished_ones_skipped(fails, dataset_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def train(seeds, *flags):
        command = ["train.py", "--seeds", seeds, "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", *flags]
        monkeypatch.setattr(sys, "argv", [*map(str, command)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "scripts" / "train.py"), run_name="__main__")
        assert stopped.value.code == 0
        return capsys.readouterr().out

    train(2)
    # A finished seed with other settings is no part of the same mean, and nothing is trained beside it.
    others = ["--seeds", 3, "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", "--lr", 0.1]
    for flags in ([], ["--resume"]):
        message = fails("train.py", *others, *flags)
        assert message.startswith(
            "The run in 'runs/small-cnn-fast-seed42' cannot be resumed with other settings: --learning_rate/--lr was "
            "0.002, is 0.1."
        )
    (tmp_path / "runs" / "small-cnn-fast-seed44").mkdir()  # a run that was killed before it wrote anything
    said = train(3, "--resume")
    assert said.count("finished before") == 2
    summary = json.loads((tmp_path / "runs" / "small-cnn-fast-seeds.json").read_text())
    assert (summary["n"], summary["seeds"]) == (3, [42, 43, 44])
    records = [json.loads((tmp_path / folder / "run.json").read_text()) for folder in summary["folders"]]
    values = [record["result"]["metrics"]["accuracy"] for record in records]
    assert summary["validation_accuracy"]["values"] == values
    assert summary["validation_accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert summary["validation_accuracy"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert summary["leading"] == ["accuracy", "macro_f1"]
    assert f"Validation accuracy {np.mean(values):.2%} +/- {np.std(values, ddof=1):.2%}, macro-F1 " in said
    python, script, *arguments = shlex.split(said.split("On test: ")[1].splitlines()[0])
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--split", "validation"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert (python, stopped.value.code) == ("python", 0)
    # The best epoch of each run, on the images that chose it.
    assert json.loads((tmp_path / "reports" / "seeds-small" / "seeds.json").read_text())["accuracy"]["values"] == values
    assert (tmp_path / "reports" / "seeds-small" / "seed44" / "report.html").is_file()
    assert len({record["data_fingerprint"] for record in records}) == 1


def test_bad_flags_of_train(fails):
    assert fails("train.py", "--model", "resnet").startswith(
        f"Unknown model 'resnet'. Available: {', '.join(available_models())}. To add one, write"
    )
    expected = "Unknown recipe 'slow' for model 'cnn'. Available: fast, reference, best."
    assert fails("train.py", "--recipe", "slow") == expected
    assert fails("train.py", "--max_train_samples", "-1") == ("--max_train_samples is -1; allowed: 1 to 1,000,000,000.")


def test_resume_with_reordered_classes_writes_nothing(succeeds, fails, dataset_folder, tmp_path):
    command = ["train.py", "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", "--output_dir", tmp_path / "run"]
    assert succeeds(*command)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert fails(*command, "--resume", "--classes", "dog", "cat", "bird", "automobile", "airplane") == (
        f"The run in '{tmp_path}/run' cannot be resumed with other settings: --classes was airplane automobile bird "
        "cat dog, is dog cat bird automobile airplane. Pass what the run was started with, or start another one: "
        "--output_dir with another name."
    )
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def printed_command(said, name):
    """The words of the command that a script prints after `name`."""
    return shlex.split(next(line.split(name)[1] for line in said.splitlines() if name in line))


def test_printed_commands_can_be_pasted_where_paths_have_spaces(succeeds, fails, dataset_folder, tmp_path):
    places = ["--output_dir", "my runs/a", "--hub_dir", "my hub"]
    said = succeeds("train.py", "--dataset", dataset_folder, "--epochs", 1, "--use_cpu", *places)
    assert printed_command(said, "curves: ")[:3] == ["tensorboard", "--logdir", "my runs/a)"]
    command = printed_command(said, "Report: ")
    script = str(ROOT / "scripts" / "eval.py")  # the command was typed in another folder
    assert command[:6] == ["python", script, "--model", "hfprobe/simple-cnn-small", "--hub_dir", "my hub"]
    said = succeeds("eval.py", *command[2:-1], "it's a [report]")
    assert printed_command(said, "Compare: ")[:3] == ["python", str(ROOT / "scripts" / "compare.py"), "it's a [report]"]
    remedy = fails("eval.py", "--report_only", "--report_dir", "no report").split("Make it: ")[1]
    assert shlex.split(remedy)[-2:] == ["--report_dir", "no report"]
    make_result(seed=1).save(tmp_path / "b")
    make_result(seed=2).save(tmp_path / "c")
    remedy = fails("compare.py", "b", "c", "--profile", "no profile").split("Make it: ")[1]
    assert shlex.split(remedy)[-2:] == ["--report_dir", "no profile"]


def test_train_with_a_class_the_dataset_does_not_have(fails, dataset_folder, tmp_path):
    (tmp_path / "out").mkdir()
    message = fails(
        "train.py",
        "--dataset",
        dataset_folder,
        "--classes",
        "cat",
        "yak",
        "--output_dir",
        tmp_path / "out",
        "--use_cpu",
    )
    assert message.startswith("Unknown class 'yak'. The dataset has: airplane, automobile, bird, cat, dog.")


def test_a_run_is_not_deleted_for_one_that_cannot_start(fails, dataset_folder, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "run.json").write_text("{}")
    message = fails(
        "train.py", "--model", "vit", "--backbone", "test_byobnet", "--backbone_weights", "none.pth",
        "--dataset", dataset_folder, "--output_dir", "old", "--overwrite", "--use_cpu",
    )  # fmt: skip
    assert message.startswith("--backbone_weights 'none.pth' is not a file")
    assert (tmp_path / "old" / "run.json").exists()


def test_train_into_a_folder_it_may_not_write(fails, tmp_path):
    (tmp_path / "file").touch()
    message = fails("train.py", "--output_dir", tmp_path / "file" / "run")
    assert message == (
        f"--output_dir '{tmp_path}/file/run' cannot be written: '{tmp_path}/file' is a file. "
        "Pass a folder that you can write to."
    )
    assert fails("train.py", "--hub_dir", tmp_path / "file" / "hub").startswith("--hub_dir '")


def test_bad_flags_of_profile_and_label_efficiency(fails, tmp_path):
    assert fails("profile_models.py", "none").startswith(
        "No model 'none': neither a folder nor a name in the hub folder"
    )
    assert fails("profile_models.py", "none", "--rounds", "4") == (
        "argument --rounds: '4' is invalid; allowed: a whole number, 5 to 10,000 (fewer rounds do not show the spread)"
    )
    assert fails("label_efficiency.py", "--models", "resnet").startswith("Unknown model 'resnet'. Available: ")
    assert fails("label_efficiency.py", "--shots", "0") == (
        "argument --shots: '0' is invalid; allowed: a whole number, 1 to 1,000,000,000"
    )
    seeds = "0 to 4,294,967,295 (numpy takes no other seeds)"
    for seed in ("-1", "4294967296", "9" * 5000):
        message = fails("label_efficiency.py", "--seed", seed)
        assert message.startswith("argument --seed: '")
        assert message.endswith(f"' is invalid; allowed: a whole number, {seeds}")
        assert len(message) < 400
    assert fails("label_efficiency.py", "--seed", "4294967295", "--seeds", "2") == (
        f"The last seed is 4294967296; allowed: {seeds}. Pass a smaller --seed."
    )
    assert fails("label_efficiency.py", "--models", "cnn", "--backbone", "test_byobnet") == (
        "--backbone is not a flag of cnn. Leave it out, or add probe to --models."
    )
    assert fails("label_efficiency.py", "--seeds", "101").startswith("argument --seeds: '101' is invalid; allowed: ")
    assert fails("profile_models.py", "none", "--batch_sizes", "1", "9" * 20).endswith("whole number, 1 to 1,000,000")
    for length in (300, 5000):
        name = "x" * length
        for command in (
            ["profile_models.py", name],
            ["eval.py", "--model", name],
            ["eval.py", "--seeds", name],
            ["eval.py", "--report_only", "--report_dir", name],
            ["compare.py", name, f"{name}y"],
            ["label_efficiency.py", "--dataset", name],
            ["train.py", "--dataset", name],
        ):
            assert len(fails(*command)) < 800
    for script in ("label_efficiency.py", "profile_models.py", "compare.py", "eval.py"):
        message = fails(script, "--report_dir", "")
        assert message == "--report_dir has an empty value. Pass a value, or leave the flag out."
    assert fails("compare.py", "a", "b", "--profile", "none").startswith("'a' holds no evaluation")


def test_bad_flags_of_eval(fails, tmp_path):
    assert fails("eval.py", "--seeds", "none.json", "--model", "x") == (
        "--seeds cannot be combined with --model or --report_only. Leave them out."
    )
    message = f"'none.json' is not a summary that python {ROOT}/scripts/train.py --seeds wrote: FileNotFoundError("
    assert fails("eval.py", "--seeds", "none.json").startswith(message)
    assert fails("eval.py").startswith("--model is missing. Pass a model folder or a name in the hub folder")
    assert fails("eval.py", "--model", "x", "--split", "train").startswith(
        "argument --split: invalid choice: 'train' (choose from"
    )
    assert fails("eval.py", "--model", "x", "--max_eval_samples", "0") == (
        "argument --max_eval_samples: '0' is invalid; allowed: a whole number, 1 to 1,000,000,000"
    )
    assert fails("eval.py", "--report_only", "--report_dir", "x", "--tta") == (
        "--report_only does not evaluate the model, so --tta has no effect. Leave one of them out."
    )
    assert fails("eval.py", "--modle", "x").startswith("Unknown argument '--modle'. Did you mean --model?")
    assert fails("eval.py", "--model", "simple-cnn") == (
        "No model 'simple-cnn': neither a folder nor a name in the hub folder 'hub', which has: nothing yet. "
        f"Train one: python {ROOT}/scripts/train.py --model cnn"
    )
    (tmp_path / "empty").mkdir()
    assert fails("eval.py", "--model", "empty").startswith("'empty' is not a model folder: it has no config.json.")
    assert fails("eval.py", "--report_only", "--report_dir", "empty").startswith("'empty' holds no evaluation")


def test_compare(fails, tmp_path, monkeypatch, capsys):
    for seed, name in enumerate(("a", "b")):
        make_result(seed=seed).save(tmp_path / name)
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "a"), str(tmp_path / "b"), "--report_dir", "out"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "scripts" / "compare.py"), run_name="__main__")
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    verdict = json.loads((tmp_path / "out" / "comparison.json").read_text())["verdict"]
    assert verdict[0] in said
    assert "Page: out/comparison.html" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.json", "comparison.md", "comparison.html",
    }  # fmt: skip
    assert fails("compare.py", tmp_path / "a").startswith("1 report folder cannot be compared; allowed: two or more")


def test_seed_zero_is_a_seed():
    assert label_efficiency.make_parser().parse_args(["--seed", "0"]).seed == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "nan"], "argument --lr: 'nan' is invalid; allowed: more than 0, at most 1,000"),
        (["--lr", "0"], "argument --lr: '0' is invalid; allowed: more than 0, at most 1,000"),
        (["--lr", "fast"], "argument --lr: 'fast' is invalid; allowed: more than 0, at most 1,000"),
        (["--epochs", "0"], "argument --epochs: '0' is invalid; allowed: a whole number, 1 to 10,000"),
        (["--dropout", "2"], "--dropout is 2.0; allowed: 0 <= dropout < 1."),
        (["--classes", "cat", ""], "--classes has an empty value. Pass a value, or leave the flag out."),
        (["--dataset", ""], "--dataset has an empty value. Pass a value, or leave the flag out."),
        (["--views", "2"], "Unknown argument '--views'. All flags: python "),
        (["--model", "x" * 5000], "Unknown model 'xxx"),
    ],
)
def test_bad_flags_of_the_sanity_check(fails, flags, message):
    said = fails("sanity_check.py", *flags)
    assert said.startswith(message)
    assert len(said) < 400


def test_hints_name_the_scripts_where_they_are(fails):
    folder = ROOT / "scripts"
    message = "Unknown argument '--frobnicate'. All flags: python {} --help"
    assert fails("compare.py", "a", "b", "--frobnicate") == message.format(folder / "compare.py")
    assert fails("sanity_check.py", "--frobnicate") == message.format(folder / "sanity_check.py")
    assert f"Make it: python {folder / 'eval.py'} --model" in fails("compare.py", "a", "b")
    assert f"Train one: python {folder / 'train.py'} --model" in fails("eval.py", "--model", "x")


@pytest.mark.parametrize(
    ("model", "flags"), [("cnn", []), ("vit", ["--backbone", "test_byobnet", "--backbone_weights", "random"])]
)
def test_sanity_check(model, flags, monkeypatch, capsys, dataset_folder):
    monkeypatch.setattr(sys, "argv", ["sanity_check.py", "--model", model, "--dataset", str(dataset_folder), *flags])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "scripts" / "sanity_check.py"), run_name="__main__")
    assert stopped.value.code == 0
    assert f"{model} overfitted 32 images" in capsys.readouterr().out


def test_sanity_check_that_fails(fails, dataset_folder):
    message = fails("sanity_check.py", "--dataset", dataset_folder, "--epochs", 1, "--lr", "1e-9", code=1)
    assert message.startswith("cnn did not overfit 32 images: ")


def test_a_report_into_the_folder_of_the_model_is_refused_before_it_is_loaded(fails, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    message = "--report_dir 'm/report' is or lies inside the model folder 'm'. Results would be mixed with other"
    for command in (["eval.py", "--model", "m"], ["profile_models.py", "m"]):
        assert fails(*command, "--report_dir", "m/report").startswith(message)
