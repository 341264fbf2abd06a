"""Wrong flags of the commands: one line that says what is allowed, exit code 2, and nothing written."""

from pathlib import Path

import pytest

from helpers.image_folders import write_images
from hfprobe.models import available_models
from hfprobe.tasks.label_efficiency import cli as label_efficiency

ROOT = Path(__file__).parent.parent


def test_bad_flags_of_train(fails):
    assert fails("train.py", "--model", "resnet").startswith(
        f"Unknown model 'resnet'. Available: {', '.join(available_models())}. To add one, write"
    )
    expected = "Unknown recipe 'slow' for model 'cnn'. Available: fast, reference, best, distill."
    assert fails("train.py", "--recipe", "slow") == expected
    assert fails("train.py", "--max_train_samples", "-1") == ("--max_train_samples is -1; allowed: 1 to 1,000,000,000.")


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
    assert fails("eval.py", "--report_only", "--report_dir", "x", "--audit", "reports/audit") == (
        "--report_only does not evaluate the model, so --audit has no effect. Leave one of them out."
    )
    assert fails("eval.py", "--model", "x", "--drop_leaks").startswith("Unknown argument '--drop_leaks'.")
    assert fails("eval.py", "--modle", "x").startswith("Unknown argument '--modle'. Did you mean --model?")
    assert fails("eval.py", "--model", "simple-cnn") == (
        "No model 'simple-cnn': neither a folder nor a name in the hub folder 'hub', which has: nothing yet. "
        f"Train one: python {ROOT}/scripts/train.py --model cnn"
    )
    (tmp_path / "empty").mkdir()
    assert fails("eval.py", "--model", "empty").startswith("'empty' is not a model folder: it has no config.json.")
    assert fails("eval.py", "--report_only", "--report_dir", "empty").startswith("'empty' holds no evaluation")


def test_audits_and_tables_of_labels_that_do_not_exist(fails, tmp_path):
    photos = write_images(tmp_path / "photos")
    for script in ("train.py", "label_efficiency.py", "decide.py"):
        if script != "decide.py":  # which makes an audit of its own
            assert fails(script, "--dataset", photos, "--drop_leaks") == (
                "--drop_leaks needs --audit, which names the duplicates. Pass the folder that hfprobe audit wrote."
            )
        assert fails(script, "--dataset", photos, "--audit", "none").startswith(
            f"'{tmp_path}/none' holds no audit (audit.json: No such file or directory). Make it: "
        )
        for name in ("none.csv", "x" * 300):
            message = fails(script, "--dataset", photos, "--labels", name)
            assert message.startswith("--labels '")
            assert message.endswith(
                "' is not a file. Pass a table with the columns file and label, such as the labels.csv "
                "of hfprobe audit."
            )


def test_seed_zero_is_a_seed():
    assert label_efficiency.make_parser().parse_args(["--seed", "0"]).seed == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "nan"], "argument --lr: 'nan' is invalid; allowed: more than 0, at most 1,000"),
        (["--lr", "0"], "argument --lr: '0' is invalid; allowed: more than 0, at most 1,000"),
        (["--lr", "fast"], "argument --lr: 'fast' is invalid; allowed: more than 0, at most 1,000"),
        (["--epochs", "0"], "argument --epochs: '0' is invalid; allowed: a whole number, 1 to 10,000"),
        (["--dropout", "2"], "--dropout is 2.0; allowed: 0 or more, less than 1."),
        (["--classes", "cat", ""], "--classes has an empty value. Pass a value, or leave the flag out."),
        (["--dataset", ""], "--dataset has an empty value. Pass a value, or leave the flag out."),
        (
            ["--views", "2"],
            "--views is a setting of the model probe, not of cnn. Leave it out, or pass ",
        ),
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


def test_a_report_into_the_folder_of_the_model_is_refused_before_it_is_loaded(fails, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    message = "--report_dir 'm/report' is or lies inside the model folder 'm'. Results would be mixed with other"
    for command in (["eval.py", "--model", "m"], ["profile_models.py", "m"]):
        assert fails(*command, "--report_dir", "m/report").startswith(message)
