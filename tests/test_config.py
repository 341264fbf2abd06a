import re
import subprocess
import sys
import textwrap

import pytest

from hfprobe.config import check_output_dir, claim_output_dir, make_run, parse_run, parse_runs
from hfprobe.errors import InputError


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_defaults():
    assert parse_run([]).training.learning_rate == 2e-3
    assert parse_run(["--lr", "0.5"]).training.learning_rate == 0.5
    assert parse_run(["--recipe", "reference"]).training.learning_rate == 1e-3
    assert parse_run(["--recipe", "reference", "--learning_rate", "3"]).training.learning_rate == 3


def test_short_names_and_any_training_argument():
    training = parse_run(
        [
            "--epochs",
            "3",
            "--batch_size",
            "7",
            "--patience",
            "2",
            "--adam_beta2",
            "0.9",
            "--dataloader_num_workers",
            "2",
        ]
    ).training
    assert (training.num_train_epochs, training.per_device_train_batch_size, training.patience) == (3, 7, 2)
    assert (training.adam_beta2, training.dataloader_num_workers) == (0.9, 2)


def test_python_and_command_line_give_the_same_run():
    assert (
        make_run(seed=7, classes=["cat", "dog"]).to_dict()
        == parse_run(["--seed", "7", "--classes", "cat", "dog"]).to_dict()
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "resnet"], "Unknown model 'resnet'. Available: cnn"),
        (["--recipe", "best"], "Unknown recipe 'best' for model 'cnn'. Available: fast, reference."),
        (["--epoch", "3"], "Unknown argument '--epoch'. Did you mean --epochs?"),
        (["--frobnicate"], "Unknown argument '--frobnicate'. All flags: python "),
        (["--epochs", "0"], "--num_train_epochs/--epochs is 0.0; allowed: more than 0."),
        (["--batch_size", "-1"], "--per_device_train_batch_size/--batch_size is -1; allowed: more than 0."),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--lr", "-1"], "--learning_rate/--lr is -1.0; allowed: more than 0."),
        (["--patience", "0"], "--patience is 0; allowed: more than 0."),
        (["--lr", "inf"], "--learning_rate/--lr is inf; allowed: more than 0."),
        (["--epochs", "nan"], "--num_train_epochs/--epochs is nan; allowed: more than 0."),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps is 0; allowed: more than 0."),
        (["--dataloader_num_workers", "-1"], "--dataloader_num_workers is -1; allowed: 0 or more."),
        (["--weight_decay", "-1"], "--weight_decay is -1.0; allowed: 0 or more."),
        (["--label_smoothing_factor", "2"], "--label_smoothing_factor is 2.0; allowed: 0 or more, less than 1."),
        (["--accelerator_config", "nosuch.json"], "No such file or directory: 'nosuch.json'"),
        (["--seed", "-1"], "--seed is -1; allowed: 0 or more."),
        (["--crop_shift", "-1"], "--crop_shift is -1; allowed: 0 or more."),
        (["--histogram_epochs", "-1"], "--histogram_epochs is -1; allowed: 0 or more."),
        (["--max_train_samples", "0"], "--max_train_samples is 0; allowed: more than 0."),
        (["--max_eval_samples", "-5"], "--max_eval_samples is -5; allowed: more than 0."),
        (["--classes", "cat", "dog", "cat"], "--classes names cat twice; allowed: each class once."),
        (["--classes", "cat"], "--classes names only cat; allowed: two classes or more."),
        (["--dropout", "1"], "--dropout is 1.0; allowed: 0 <= dropout < 1."),
        (["--warmup_steps", "-3"], "warmup_steps = -3"),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    ],
)
def test_bad_input(argv, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_run(argv)


def test_output_folder_with_another_run(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    expected = (
        f"The output folder '{tmp_path}' holds another run. Go on with it: --resume. Delete it: --overwrite. "
        "Keep it: --output_dir with another name."
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        check_output_dir(make_run(output_dir=str(tmp_path)).training)
    assert (tmp_path / "run.json").exists()
    for flag in ("resume", "overwrite"):
        check_output_dir(make_run(output_dir=str(tmp_path), **{flag: True}).training)
        assert (tmp_path / "run.json").exists()
    claim_output_dir(make_run(output_dir=str(tmp_path), resume=True).training)
    assert (tmp_path / "run.json").exists()
    claim_output_dir(make_run(output_dir=str(tmp_path), overwrite=True).training)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_no_run_keeps_its_files(tmp_path):
    (tmp_path / "notes.txt").touch()
    claim_output_dir(make_run(output_dir=str(tmp_path), overwrite=True).training)
    assert (tmp_path / "notes.txt").exists()


def test_nothing_to_resume(tmp_path):
    expected = f"Nothing to resume: the output folder '{tmp_path}' holds no run. Leave --resume out."
    with pytest.raises(InputError, match=re.escape(expected)):
        check_output_dir(make_run(output_dir=str(tmp_path), resume=True).training)


def test_an_answer_about_flags_waits_for_no_model_and_no_trainer():
    program = """
        import sys
        from hfprobe.config import parse_run
        from hfprobe.errors import InputError
        for argv in (["--help"], ["--epocs", "3"], ["--epochs", "-1"], ["--model", "vit", "--views", "x"]):
            try:
                parse_run(argv)
            except (InputError, SystemExit):
                heavy = ("transformers.modeling_utils", "transformers.trainer", "torchvision", "timm", "datasets")
                print("heavy:", [name for name in heavy if name in sys.modules])
        """
    printed = subprocess.check_output([sys.executable, "-c", textwrap.dedent(program)], text=True)
    assert [line for line in printed.splitlines() if line.startswith("heavy:")] == ["heavy: []"] * 4


def test_bfloat16_needs_units_for_it(monkeypatch):
    flag = "--bf16"
    monkeypatch.setattr("hfprobe.config.has_bf16_units", lambda: False)
    with pytest.raises(InputError, match=re.escape("this one has none and takes several times as long")):
        parse_run([flag, "--use_cpu"])
    monkeypatch.setattr("hfprobe.config.has_bf16_units", lambda: True)
    assert parse_run([flag, "--use_cpu"]).training.bf16
    with pytest.raises(InputError, match=r"^--bf16_full_eval rounds the weights after training"):
        parse_run(["--bf16_full_eval", "--use_cpu"])


@pytest.mark.parametrize("flag", ["--fp16", "--fp16_full_eval"])
def test_float16_needs_a_gpu(monkeypatch, flag):
    monkeypatch.setattr("hfprobe.config.has_accelerator", lambda: False)
    with pytest.raises(InputError, match=re.escape("--fp16 and --fp16_full_eval need a GPU, and none is here.")):
        parse_run([flag])


@pytest.mark.parametrize(
    ("configured", "message"),
    [
        (
            "bf16",
            "mixed_precision: bf16 in accelerate's configuration needs a GPU, or a CPU with units for bfloat16; this "
            "one has none and takes several times as long as with float32. Set it to 'no'.",
        ),
        (
            "fp16",
            "mixed_precision: fp16 in accelerate's configuration needs a GPU, and none is here. Set it to 'no'.",
        ),
        ("fp8", "mixed_precision is fp8 in accelerate's configuration. Allowed: no, bf16, fp16."),
    ],
)
@pytest.mark.parametrize("gpu", [False, True])
def test_a_precision_of_the_accelerate_configuration_that_this_run_cannot_use(monkeypatch, configured, message, gpu):
    monkeypatch.setattr("hfprobe.config.has_bf16_units", lambda: False)
    monkeypatch.setattr("hfprobe.config.has_accelerator", lambda: gpu)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", configured)
    for on_cpu in ({"--use_cpu"}, {"ACCELERATE_USE_CPU"}) if gpu else (set(),):
        monkeypatch.setenv("ACCELERATE_USE_CPU", str("ACCELERATE_USE_CPU" in on_cpu))
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            parse_run([flag for flag in on_cpu if flag.startswith("--")])


def test_seeds_are_runs_of_their_own_on_one_split():
    runs = parse_runs(["--seeds", "3", "--seed", "7"])
    assert [run.training.seed for run in runs] == [7, 8, 9]
    assert [run.split_seed for run in runs] == [7, 7, 7]
    assert [run.training.output_dir for run in runs] == [f"runs/cnn-fast-seed{seed}" for seed in (7, 8, 9)]
    varied = parse_runs(["--seeds", "2", "--vary_split", "--output_dir", "x"])
    assert [run.split_seed for run in varied] == [42, 43]
    assert [run.training.output_dir for run in varied] == ["x/seed42", "x/seed43"]
    assert [run.split_seed for run in parse_runs(["--split_seed", "3"])] == [3]
    with pytest.raises(InputError, match=re.escape("--seeds is 0; allowed: more than 0.")):
        parse_runs(["--seeds", "0"])


def test_deterministic_is_short_for_full_determinism():
    assert parse_run(["--deterministic"]).training.full_determinism
    assert not parse_run([]).training.full_determinism
