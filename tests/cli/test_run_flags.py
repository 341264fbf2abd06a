"""Every flag of every model with valid and wrong values: a checked configuration, or an error in one line."""

import logging
import re
from pathlib import Path

import pytest

from helpers.flags import CASES, PARSERS, attempt, values_for
from hfprobe.cli.run_flags import parse_runs
from hfprobe.settings.run_config import build_run
from hfprobe.system.errors import InputError


@pytest.mark.parametrize(("model", "field"), sorted(CASES))
def test_a_flag_with_any_value_is_taken_or_refused_in_one_line(model, field):
    for value in values_for(model, field):
        argv = [f"--{field}"] if value is None else [f"--{field}={value}"]
        attempt(lambda argv=argv: build_run(**{"model": model} | PARSERS[model].read(argv)), what=value)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe", ""], "--recipe has an empty value. Pass a value, or leave the flag out."),
        (["--recipe="], "--recipe has an empty value. Pass a value, or leave the flag out."),
        (["--output_dir", ""], "--output_dir has an empty value. Pass a value, or leave the flag out."),
        (["--hub_dir", ""], "--hub_dir has an empty value. Pass a value, or leave the flag out."),
        (["--dataset", ""], "--dataset has an empty value. Pass a value, or leave the flag out."),
        (["--classes", "cat", ""], "--classes has an empty value. Pass a value, or leave the flag out."),
        ([""], "The first argument has an empty value. Pass a value, or leave the flag out."),
        (["--output_dir", "caf\udce9"], "'caf\\udce9' has a byte that is not UTF-8. Rename the file, or correct it."),
        (["--classes", "a", "a"], "--classes names a twice; allowed: each class once."),
        (["--lr"], "argument --lr: expected one argument"),
        (["--classes"], "argument --classes: expected at least one argument"),
        (["cat"], "Unknown argument 'cat'. All flags: hfprobe train --help"),
        (["--lr", "1", "2"], "Unknown argument '2'. All flags: hfprobe train --help"),
        (
            ["--seed", "4294967296"],
            "--seed is 4294967296; allowed: 0 to 4,294,967,295 (numpy takes no other seeds).",
        ),
        (["--split_seed", "-1"], "--split_seed is -1; allowed: 0 to 4,294,967,295 (numpy takes no other seeds)."),
        (
            ["--seed", "4294967290", "--seeds", "10"],
            "--seed 4294967290 with --seeds 10 passes 4294967295. Pass a smaller --seed.",
        ),
        (
            ["--seeds", "101"],
            "--seeds is 101; allowed: 1 to 100 (each is a whole run; start more with another --seed).",
        ),
        (
            ["--batch_size", "9" * 20],
            f"--per_device_train_batch_size/--batch_size is {'9' * 20}; allowed: 1 to 1,000,000.",
        ),
        (["--max_steps", "0"], "--max_steps is 0; allowed: -1 to 1,000,000,000 (-1: as --epochs says; not 0)."),
        (["--save_total_limit", "0"], "--save_total_limit is 0; allowed: 1 to 1,000,000."),
        (["--eval_accumulation_steps", "0"], "--eval_accumulation_steps is 0; allowed: 1 to 1,000,000."),
        (["--logging_steps", "0"], "--logging_steps is 0.0; allowed: more than 0, at most 1,000,000,000."),
        (["--max_grad_norm", "nan"], "--max_grad_norm is nan; allowed: 0 to 1,000,000 (0: nothing is clipped)."),
        (["--adam_beta1", "2"], "--adam_beta1 is 2.0; allowed: 0 or more, less than 1."),
        (
            ["--remove_unused_columns", "true"],
            "--remove_unused_columns finds columns by their names, and hfprobe's batches have none to drop. Leave it "
            "out.",
        ),
        (
            ["--resume_from_checkpoint", "runs/x"],
            "--resume_from_checkpoint is not read: --resume continues from the newest checkpoint in --output_dir. "
            "Leave it out.",
        ),
        (
            ["--save_only_model", "true"],
            "--save_only_model leaves out what --resume needs, so that a stopped run would begin again. Leave it out.",
        ),
        (["--neftune_noise_alpha", "5"], "--neftune_noise_alpha is for language models. Leave it out."),
        (
            ["--train_sampling_strategy", "group_by_length"],
            "--train_sampling_strategy applies only to text: images have no length. Leave it out.",
        ),
        (
            ["--dataloader_persistent_workers", "true"],
            "--dataloader_persistent_workers needs --dataloader_num_workers of 1 or more. Leave it out.",
        ),
        (["--accelerator_config", '{"a"'], '--accelerator_config is {"a"; allowed: a JSON object, such as '),
        (["--report_to", "x"], "--report_to is x, which is unknown or not installed. Installed: "),
        (["--model", "probe", "--views", "101"], "--views is 101; allowed: 1 to 100 (each is a pass over the"),
        (["--head_scale", "nan"], "--head_scale is nan; allowed: more than 0, at most 1,000."),
        (["--bf16", "perhaps"], "argument --bf16: Truthy value expected: got perhaps"),
    ],
)
def test_wrong_flags(argv, message, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        parse_runs(argv)


@pytest.mark.hostile
@pytest.mark.parametrize("length", [300, 5000])
@pytest.mark.parametrize(
    "flag", ["--run_name", "--model", "--recipe", "--backbone", "--classes", "--hub_model_id", "--x"]
)
def test_an_error_does_not_repeat_thousands_of_characters(flag, length):
    attempt(lambda: parse_runs(["--model", "probe", flag, "x" * length]))
    attempt(lambda: parse_runs([flag + "x" * length]))


def test_the_number_of_workers_is_bounded_by_the_machine():
    with pytest.raises(InputError, match=r"allowed: 0 to \d+ \(twice the cores of this machine, at least 8\)"):
        parse_runs(["--dataloader_num_workers", "100000"])
    assert parse_runs(["--dataloader_num_workers", "8"])[0].training.dataloader_num_workers == 8


def test_a_flag_that_was_passed_twice_is_named_and_the_last_value_used(caplog):
    (run,) = parse_runs(["--lr", "0.1", "--learning_rate", "0.2", "--seed=1", "--seed", "2", "--epochs", "3"])
    assert (run.training.learning_rate, run.training.seed) == (0.2, 2)
    assert caplog.messages == [
        "--lr and --learning_rate: passed 2 times. The last value is used.",
        "--seed: passed 2 times. The last value is used.",
    ]
    caplog.clear()
    parse_runs(["--seeds", "2", "--seed", "3"])  # hfprobe's own flags of each seed are not the user's
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_hint_names_the_command_that_runs(monkeypatch):
    script = str(Path(__file__).parents[2] / "scripts" / "train.py")
    for running, command in ((script, f"python {script}"), ("/usr/bin/hfprobe", "hfprobe train")):
        monkeypatch.setattr("sys.argv", [running])
        with pytest.raises(InputError, match=re.escape(f"All flags: {command} --help")):
            parse_runs(["--frobnicate"])
