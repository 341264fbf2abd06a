import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
from transformers.trainer_utils import SaveStrategy

from hfprobe.cli.run_flags import parse_run, parse_runs
from hfprobe.settings.origins import name_origins
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError


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
        (["--recipe", "slow"], "Unknown recipe 'slow' for model 'cnn'. Available: fast, reference, best, distill."),
        (["--epoch", "3"], "Unknown argument '--epoch'. Did you mean --epochs?"),
        (["--frobnicate"], "Unknown argument '--frobnicate'. All flags: hfprobe train --help"),
        (["--epochs", "0"], "--num_train_epochs/--epochs is 0.0; allowed: more than 0, at most 1,000,000."),
        (["--batch_size", "-1"], "--per_device_train_batch_size/--batch_size is -1; allowed: 1 to 1,000,000."),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--lr", "-1"], "--learning_rate/--lr is -1.0; allowed: more than 0, at most 1,000."),
        (["--patience", "0"], "--patience is 0; allowed: 1 to 1,000,000."),
        (["--lr", "inf"], "--learning_rate/--lr is inf; allowed: more than 0, at most 1,000."),
        (["--epochs", "nan"], "--num_train_epochs/--epochs is nan; allowed: more than 0, at most 1,000,000."),
        (["--gradient_accumulation_steps", "0"], "--gradient_accumulation_steps is 0; allowed: 1 to 1,000,000."),
        (["--dataloader_num_workers", "-1"], "--dataloader_num_workers is -1; allowed: 0 to "),
        (["--weight_decay", "-1"], "--weight_decay is -1.0; allowed: 0 to 1,000."),
        (["--label_smoothing_factor", "2"], "--label_smoothing_factor is 2.0; allowed: 0 or more, less than 1."),
        (["--accelerator_config", "nosuch.json"], "No such file or directory: 'nosuch.json'"),
        (["--seed", "-1"], "--seed is -1; allowed: 0 to 4,294,967,295 (numpy takes no other seeds)."),
        (["--crop_shift", "-1"], "--crop_shift is -1; allowed: 0 to 31."),
        (["--histogram_epochs", "-1"], "--histogram_epochs is -1; allowed: 0 to 1,000,000."),
        (["--max_train_samples", "0"], "--max_train_samples is 0; allowed: 1 to 1,000,000,000."),
        (["--max_eval_samples", "-5"], "--max_eval_samples is -5; allowed: 1 to 1,000,000,000."),
        (["--classes", "cat", "dog", "cat"], "--classes names cat twice; allowed: each class once."),
        (["--classes", "cat"], "--classes names only cat; allowed: two classes or more."),
        *(
            (["--image_size", size], f"--image_size is {size}; allowed: 32 to 512 (three halvings of 32 leave ")
            for size in ("7", "31", "513", "100000")
        ),
        (["--image_size", "abc"], "argument --image_size/--image-size: invalid int value: 'abc'"),
        (["--crop", "centre"], "argument --crop: invalid choice: 'centre' (choose from "),
        (["--dropout", "1"], "--dropout is 1.0; allowed: 0 or more, less than 1."),
        (["--warmup_steps", "-3"], "--warmup_steps is -3.0; allowed: 0 to 1,000,000,000."),
        (["--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    ],
)
def test_bad_input(argv, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_run(argv)


@pytest.mark.slow
def test_help_and_errors_about_flags_import_no_model_and_no_trainer():
    program = """
        import sys
        from hfprobe.cli.run_flags import parse_run
        from hfprobe.system.errors import InputError
        for argv in (["--help"], ["--epocs", "3"], ["--epochs", "-1"], ["--model", "vit", "--views", "x"]):
            try:
                parse_run(argv)
            except (InputError, SystemExit):
                heavy = ("transformers.modeling_utils", "transformers.trainer", "torchvision", "timm", "datasets")
                print("heavy:", [name for name in heavy if name in sys.modules])
        """
    printed = subprocess.check_output([sys.executable, "-c", textwrap.dedent(program)], text=True)
    assert [line for line in printed.splitlines() if line.startswith("heavy:")] == ["heavy: []"] * 4


def test_each_seed_is_a_separate_run_on_the_same_split():
    runs = parse_runs(["--seeds", "3", "--seed", "7"])
    assert [run.training.seed for run in runs] == [7, 8, 9]
    assert [run.split_seed for run in runs] == [7, 7, 7]
    assert [run.training.output_dir for run in runs] == [f"runs/cnn-fast-seed{seed}" for seed in (7, 8, 9)]
    varied = parse_runs(["--seeds", "2", "--vary_split", "--output_dir", "x"])
    assert [run.split_seed for run in varied] == [42, 43]
    assert [run.training.output_dir for run in varied] == ["x/seed42", "x/seed43"]
    assert [run.split_seed for run in parse_runs(["--split_seed", "3"])] == [3]
    with pytest.raises(InputError, match=re.escape("--seeds is 0; allowed: 1 to 100 (")):
        parse_runs(["--seeds", "0"])


@pytest.mark.parametrize(
    ("side", "settings", "image_size", "crop", "line"),
    [
        (32, {}, 32, "shift", "32 pixels: --crop shift, --image_size 32."),
        (48, {}, 32, "shift", "48 pixels: --crop shift, --image_size 32."),
        (48.5, {}, 64, "resized", "48.5 pixels: --crop resized, --image_size 64."),
        (3000, {"image_size": 96}, 96, "resized", "3000 pixels: --crop resized."),
        (3000, {"crop": "shift"}, 64, "shift", "3000 pixels: --image_size 64."),
        (3000, {"crop_shift": 4}, 64, "shift", "3000 pixels: --image_size 64."),
        (3000, {"crop_padding": "black"}, 64, "shift", "3000 pixels: --image_size 64."),
        (3000, {"augment": False}, 64, None, "3000 pixels: --image_size 64."),
        (28, {"image_size": 64, "crop": "resized"}, 64, "resized", None),
    ],
)
def test_image_size_and_crops_are_chosen_from_the_images_where_they_are_not_passed(
    side, settings, image_size, crop, line, caplog
):
    config = make_run(**settings)
    with caplog.at_level("INFO"):
        chosen = config.for_images(SimpleNamespace(median_side=side))
    assert (chosen.model.image_size, chosen.data.crop) == (image_size, crop)
    lines = [] if line is None else [f"Chosen from the training images, whose shorter side has a median of {line}"]
    assert caplog.messages == lines
    recorded = chosen.to_dict()
    assert recorded["model"]["image_size"] == image_size
    assert recorded["data"].get("crop") == crop
    again = make_run(**chosen.to_settings())  # as from config.yaml, whatever the images are
    assert again.for_images(SimpleNamespace(median_side=1)).to_dict() == recorded


def test_images_are_not_looked_at_for_a_probe_whose_features_are_cached():
    config = make_run(model="probe")
    assert config.for_images(None) == config
    trained = make_run(model="probe", head="sgd", feature_cache="off")
    assert trained.for_images(SimpleNamespace(median_side=300)).data.crop == "resized"


def test_deterministic_is_short_for_full_determinism():
    assert parse_run(["--deterministic"]).training.full_determinism
    assert not parse_run([]).training.full_determinism


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], []),
        (["--lr", "0.1", "--epochs", "3", "--crop_shift", "2", "--dropout", "0.1"], []),
        (["--model", "vit"], []),
        (["--model", "vit", "--head", "sgd", "--lr", "0.1", "--epochs", "3"], []),
        (["--model", "vit", "--recipe", "reference", "--lr", "0.1"], []),
        (
            ["--model", "vit", "--lr", "0.1", "--epochs", "3"],
            [
                "--learning_rate/--lr, --num_train_epochs/--epochs have no effect: --head exact (the recipe) solves "
                "the head without gradient steps. To train it, pass --head sgd."
            ],
        ),
        (
            ["--model", "vit", "--flips", "random"],
            [
                "--flips has no effect: cached features are not augmented. Use --views, or --feature_cache off with "
                "--head sgd."
            ],
        ),
        (["--model", "vit", "--head", "sgd", "--feature_cache", "off", "--flips", "random"], []),
        (
            ["--optimizer", "adam", "--muon_momentum", "0.5"],
            ["--muon_momentum has no effect: only --optimizer muon reads it."],
        ),
        (["--adam_beta1", "0.8"], []),
        (
            ["--optimizer", "sgd", "--adam_beta1", "0.8"],
            ["--adam_beta1 has no effect: the chosen optimizer is not an Adam."],
        ),
        (
            ["--no_augment", "--crop_padding", "black"],
            ["--crop_padding has no effect: --augment false turns crops and flips off."],
        ),
        (
            ["--crop", "resized", "--crop_shift", "2", "--flips", "random"],
            ["--crop_shift has no effect: --crop resized does not shift the image."],
        ),
        (
            ["--crop_shift", "0", "--crop_padding", "black"],
            ["--crop_padding has no effect: with --crop_shift 0, crops stay inside the image."],
        ),
        (
            ["--recipe", "reference", "--warmup_steps", "3"],
            ["--warmup_steps has no effect: --lr_scheduler_type reduce_lr_on_plateau (the recipe) has no warm-up."],
        ),
        (
            ["--max_steps", "3", "--epochs", "2"],
            ["--num_train_epochs/--epochs has no effect: --max_steps ends the run."],
        ),
        (["--run_name", "x"], ["--run_name has no effect: only services other than TensorBoard show it."]),
        (["--save_steps", "3"], ["--save_steps has no effect: --save_strategy is epoch (the default)."]),
        (["--vary_split"], ["--vary_split has no effect: --seeds is 1 (the default)."]),
        (
            ["--vary_split", "--seeds", "2", "--split_seed", "1"],
            ["--vary_split has no effect: --split_seed sets one split."],
        ),
    ],
)
def test_a_flag_that_has_no_effect_is_named_with_the_reason(argv, expected, caplog):
    parse_runs([*argv, "--output_dir", "unused", "--use_cpu"])
    assert caplog.messages == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--model is cnn. Pass it.", "--model is cnn (the default). Pass it."),
        ("No model. Train one: hfprobe train --model cnn", "No model. Train one: hfprobe train --model cnn"),
        ("Run python scripts/train.py --seed 1 --model cnn.", "Run python scripts/train.py --seed 1 --model cnn."),
        ("Of hfprobe train. --model is cnn", "Of hfprobe train. --model is cnn (the default)"),
    ],
)
def test_the_origin_of_a_value_is_named_except_in_commands(text, expected):
    assert name_origins(text, values={"model": "cnn"}, passed=(), recipe={}) == expected


def test_values_without_effect_are_named_in_python_too(caplog):
    make_run(model="vit", learning_rate=0.1, lr_scheduler_kwargs={"num_cycles": 1})
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("--learning_rate/--lr, --lr_scheduler_kwargs have no effect: --head exact")


def test_a_run_lists_the_settings_that_have_an_effect():
    exact, sgd = (make_run(model="vit", head=head).to_dict() for head in ("exact", "sgd"))
    gone = {"learning_rate", "optimizer", "num_train_epochs", "per_device_train_batch_size", "patience", "lr_scale"}
    assert not gone & exact["training"].keys()
    assert gone <= sgd["training"].keys()
    assert exact["training"]["per_device_eval_batch_size"] == 500
    assert "flips" not in exact["data"] | sgd["data"]
    assert "optim" not in make_run().to_dict()["training"]
    assert "muon_momentum" not in make_run(recipe="reference").to_dict()["training"]
    # Defaults are listed: another version of a library may have others.
    assert make_run().to_dict()["training"]["adam_epsilon"] == 1e-8


def test_python_values_may_have_types_that_a_command_line_cannot_express(tmp_path):
    config = make_run(
        output_dir=tmp_path, classes=("cat", "dog"), max_train_samples=None, save_total_limit=None, augment=False,
        lr_scheduler_type="cosine", lr_scheduler_kwargs={"num_cycles": 1}, report_to=["tensorboard"],
        save_strategy=SaveStrategy.EPOCH, learning_rate=1, label_names=["labels"],
    )  # fmt: skip
    training = config.training
    assert (training.output_dir, training.save_total_limit, training.learning_rate) == (str(tmp_path), None, 1.0)
    assert (training.lr_scheduler_kwargs, training.report_to) == ({"num_cycles": 1}, ["tensorboard"])
    assert (config.data.classes, config.data.augment, training.label_names) == (["cat", "dog"], False, ["labels"])
    assert config.passed >= {"output_dir", "classes", "save_total_limit", "lr_scheduler_kwargs"}


def test_the_recipe_best_is_fast_with_three_times_the_epochs():
    fast, best = (make_run(recipe=name, output_dir="x").to_dict() for name in ("fast", "best"))
    changed = {"num_train_epochs": 60, "patience": 60, "recipe": "best"}
    assert best == fast | {"training": fast["training"] | changed}


def test_help_says_which_weights_the_learning_rate_reaches_under_muon(capsys):
    with pytest.raises(SystemExit):
        parse_run(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "With --optimizer muon it is that of the linear layers, biases and norms only" in said
    assert "--lr_scale LR_SCALE" in said


@pytest.mark.parametrize("flags", [{"bf16": True}, {"precision": "bf16"}, {"precision": "fp32"}])
def test_the_settings_of_a_run_repeat_its_precision_as_it_was_passed(flags, monkeypatch):
    monkeypatch.setattr("hfprobe.settings.arguments.preferred_precision", lambda device: ("bf16", ""))
    monkeypatch.setattr("hfprobe.settings.arguments.has_accelerator", lambda: False)
    settings = make_run(**flags).to_settings()
    assert {name: settings[name] for name in ("bf16", "precision") if name in settings} == flags
    assert make_run(**settings).training.recorded_precision == ("fp32" if flags == {"precision": "fp32"} else "bf16")


def test_places_in_records_mean_the_same_from_every_folder(tmp_path, monkeypatch):
    for folder in ("photos", "hub", "random"):  # the last two are also words of --backbone_weights
        (tmp_path / folder).mkdir()
    (tmp_path / "weights.pth").touch()
    monkeypatch.chdir(tmp_path)
    config = make_run(dataset="photos/../photos/", model="probe", backbone_weights="weights.pth")
    expected = {"dataset": f"{tmp_path}/photos", "backbone_weights": f"{tmp_path}/weights.pth"}
    assert expected.items() <= config.to_settings().items()
    assert config.to_dict()["data"]["dataset"] == f"{tmp_path}/photos"
    monkeypatch.chdir("/")
    again = make_run(**config.to_settings())
    assert again.to_dict()["data"] == config.to_dict()["data"]
    assert (again.hub_name, again.default_output_dir) == (config.hub_name, config.default_output_dir)
    for word in ("hub", "random"):
        assert make_run(model="probe", backbone_weights=word).model.backbone_weights == word
    assert make_run(dataset="owner/photos").to_settings()["dataset"] == "owner/photos"
