"""Settings in YAML: the command line wins over a file, and the file that a run leaves repeats the run."""

import re

import pytest
import yaml

from helpers.flags import attempt
from helpers.runs import assert_same_run, small_run
from hfprobe.cli.run_flags import parse_run, parse_runs
from hfprobe.settings.files import read_config_file, write_config_file
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError
from hfprobe.training.resume import check_same_run


@pytest.fixture
def file(tmp_path):
    return tmp_path / "run.yaml"


def test_the_command_line_wins_over_the_file_and_the_file_over_the_recipe(file):
    file.write_text("recipe: reference\nlr: 0.5\nepochs: 7  # a comment\n")
    training = parse_run(["--config", str(file), "--learning_rate", "3"]).training
    assert (training.recipe, training.learning_rate, training.num_train_epochs) == ("reference", 3, 7)
    assert training.optimizer == "adam"  # the recipe's
    assert parse_run([f"--config={file}", "--recipe", "fast"]).training.optimizer == "muon"
    file.write_text("model: vit\nhead: sgd\n")
    assert parse_run(["--config", str(file)]).model.head == "sgd"
    file.write_text("head: sgd\n")
    assert parse_run(["--config", str(file), "--model", "probe"]).model.head == "sgd"


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("lr: 2e-3", "learning_rate", 0.002),
        ("lr: 1", "learning_rate", 1.0),
        ("lr: .5", "learning_rate", 0.5),
        ("save_strategy: no", "save_strategy", "no"),
        ("run_name: on", "run_name", "on"),
        ("run_name: 2024-01-01", "run_name", "2024-01-01"),
        ("run_name: 1:30", "run_name", "1:30"),
        ("run_name: '7'", "run_name", "7"),
        ("classes: [cat, dog]", "classes", ["cat", "dog"]),
        ("classes:\n- 'no'\n- Größe", "classes", ["no", "Größe"]),
        ("augment: false", "augment", False),
        ("max_train_samples:", "max_train_samples", None),
        ("max_train_samples: null", "max_train_samples", None),
        ("lr_scheduler_kwargs: {mode: max, factor: 1e-1}", "lr_scheduler_kwargs", {"mode": "max", "factor": 0.1}),
        ("\ufeffseed: 3", "seed", 3),
    ],
)
def test_values_are_read_as_yaml_1_2_has_them_and_written_so_that_yaml_1_1_agrees(file, text, name, expected):
    file.write_text(text, encoding="utf-8")
    assert read_config_file(file) == {name: expected}
    write_config_file(file, {name: expected})
    assert read_config_file(file) == yaml.safe_load(file.read_text(encoding="utf-8")) == {name: expected}


def test_a_text_that_looks_like_a_number_or_a_truth_value_is_written_in_quotes(file):
    for text in (
        "2e-3",
        "no",
        "on",
        "true",
        "null",
        "~",
        "010",
        "1:30",
        "7",
        ".5",
        "2024-01-01",
        "a: b",
        "# a",
        "\u202e",
    ):
        write_config_file(file, {"run_name": text})
        assert read_config_file(file) == yaml.safe_load(file.read_text(encoding="utf-8")) == {"run_name": text}


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "'{}': Unknown setting 'epoch'. Did you mean epochs?"),
        ("--epochs: 3", "'{}': Unknown setting '--epochs'. Did you mean epochs?"),
        ("2: 3", "'{}': Unknown setting '2'. All settings: hfprobe train --model cnn --help"),
        ("config: x.yaml", "'{}': Unknown setting 'config'."),
        ("<<: {seed: 1}", "'{}': Unknown setting '<<'."),
        ("model: resnet", "'{}': Unknown model 'resnet'. Available: cnn, probe."),
        ("model: [cnn]", "'{}': model is ['cnn']; allowed: a string."),
        ("recipe: 3", "'{}': recipe is 3; allowed: a string, or none."),
        ("recipe: slow", "Unknown recipe 'slow' for model 'cnn'."),
        ("model: probe\nhead: svm", "'{}': head is 'svm'; allowed: exact, sgd."),
        ("seed: 1\nlr: 1\nseed: 1", "'{}', line 3: 'seed' is set twice. Write each setting once, as 'epochs: 3'."),
        ("lr_scheduler_kwargs: {a: 1, a: 1}", "'{}', line 1: 'a' is set twice."),
        ("epochs: 3\nnum_train_epochs: 4", "'{}': epochs is 3.0 and num_train_epochs is 4.0: both name one setting."),
        ("seed: 1.5", "'{}': seed is 1.5; allowed: a whole number."),
        ("seed: 010", "'{}': seed is 10.0; allowed: a whole number."),
        ("seed: -1", "--seed is -1; allowed: 0 to 4,294,967,295"),
        ("lr:", "'{}': lr is None; allowed: a number."),
        ("augment: yes", "'{}': augment is 'yes'; allowed: true or false."),
        ("classes: [0, 1]", "'{}': classes is [0, 1]; allowed: a list of strings, with numbers among them in "
    "quotes, or none."),
        ("run_name: ''", "'{}': run_name has an empty value. Set it to a value, or leave it out."),
        ("", "'{}' holds nothing; allowed: settings, one per line, as 'epochs: 3'."),
        ("# nothing", "'{}' holds nothing; allowed: settings, one per line, as 'epochs: 3'."),
        ("- lr: 1", "'{}' holds a list; allowed: settings, one per line, as 'epochs: 3'."),
        ("--lr 1", "'{}' holds one value; allowed: settings, one per line, as 'epochs: 3'."),
        ("lr: 1\nseed", "'{}', line 2: could not find expected ':'. Write each setting once, as 'epochs: 3'."),
        ("lr: [", "'{}', line 1: expected the node content, but found '<stream end>'."),
        ("lr: 1\n---\nlr: 2", "'{}', line 2: but found another document."),
        ("run_name: &x [1]\nclasses: *x", "'{}', line 2: an alias is not allowed."),
        ("!!python/object/apply:os.system ['touch bomb']", "'{}', line 1: could not determine a constructor for "),
        ("lr: !!timestamp x", "'{}' is not YAML: "),
        ("? [a]\n: 2", "'{}', line 1: found unhashable key."),
        ("seed: " + "9" * 5000, "'{}' is not YAML: "),
        ("[" * 3000, "'{}' is not YAML: "),
        ("a: \0", "'{}' is not YAML: "),
        ("x" * 5000 + ": 1", "'{}'"),
        ("lr: " + "x" * 5000, "'{}': lr is '"),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_a_file_that_cannot_be_used(file, monkeypatch, text, message):
    monkeypatch.chdir(file.parent)
    file.write_text(text)
    with pytest.raises(InputError, match=f"^{re.escape(message.format('run.yaml'))}") as refused:
        parse_runs(["--config", "run.yaml"])
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    assert [path.name for path in file.parent.iterdir()] == ["run.yaml"]


@pytest.mark.hostile
def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"run_name: caf\xe9")
    (tmp_path / "link.yaml").symlink_to("link.yaml")
    for name, reason in {
        "none.yaml": "No such file or directory",
        ".": "Is a directory",
        "link.yaml": "Too many levels of symbolic links",
        "bytes.yaml": "'utf-8' codec can't decode byte 0xe9",
        "a\0b": "embedded null byte",
    }.items():
        with pytest.raises(InputError, match=re.escape(f"--config '{name}' cannot be read: {reason}")):
            parse_runs(["--config", name])
    with pytest.raises(InputError, match="argument --config: expected one argument"):
        parse_runs(["--config"])
    with pytest.raises(InputError, match=r"^Unknown model 'x'\."):  # the file is not to blame
        parse_runs(["--config", "none.yaml", "--model", "x"])


def test_settings_of_a_file_that_have_no_effect_are_named(file, caplog):
    file.write_text("optimizer: adam\nmuon_momentum: 0.5\n")
    (run,) = parse_runs(["--config", str(file), "--use_cpu"])
    assert caplog.messages == ["--muon_momentum has no effect: only --optimizer muon reads it."]
    assert run.passed == {"optimizer", "muon_momentum", "use_cpu"}


def test_every_seed_of_a_run_has_the_settings_of_the_file(file):
    file.write_text("seeds: 2\nseed: 5\nlr: 0.5\noutput_dir: x\n")
    runs = [run.training for run in parse_runs(["--config", str(file)])]
    assert [(run.seed, run.learning_rate, run.output_dir) for run in runs] == [(5, 0.5, "x/seed5"), (6, 0.5, "x/seed6")]


def test_help_shows_the_values_of_the_file_as_defaults(file, capsys):
    file.write_text("recipe: reference\nlr_scale: 0.125\n")
    with pytest.raises(SystemExit):
        parse_run(["--config", str(file), "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Factor on every learning rate of the run, on --muon_learning_rate too. (default: 0.125)" in said
    assert "--config FILE YAML file of settings" in said


RUNS = [
    [],
    ["--model", "vit"],
    ["--model", "vit", "--head", "sgd", "--views", "2", "--seed", "3"],
    ["--recipe", "reference", "--lr_scheduler_type", "cosine", "--split_seed", "0"],
    ["--recipe", "best", "--lr_scheduler_type", "cosine", "--lr_scheduler_kwargs", '{"num_cycles": 2e-1}'],
    ["--classes", "no", "1e3", "Größe", "--no_augment", "--report_to", "none", "--run_name", "007"],
    ["--eval_strategy", "steps", "--save_strategy", "steps", "--logging_steps", "10", "--save_steps", "10"],
    ["--accelerator_config", '{"even_batches": false}', "--lr", "1e-7", "--deterministic"],
    ["--optimizer", "optim", "--optim", "sgd", "--optim_args", "momentum=0.9, nesterov=true"],
    ["--debug", "underflow_overflow", "--max_train_samples", "100", "--epochs", "0.5", "--batch_size", "3"],
]


@pytest.mark.parametrize("argv", RUNS, ids=" ".join)
def test_the_file_of_a_run_repeats_it(file, argv):
    config = parse_run([*argv, "--use_cpu", "--output_dir", "x", "--overwrite", "--hub_token", "secret"])
    write_config_file(file, config.to_settings())
    again = parse_run(["--config", str(file)])
    assert_same_run(config, again)
    assert_same_run(config, make_run(**config.to_settings()))
    assert again.to_settings() == config.to_settings()
    for absent in ("secret", "token", "output_dir", "overwrite", "resume"):
        assert absent not in file.read_text(encoding="utf-8").lower()


def test_the_file_of_each_of_several_seeds_repeats_that_seed(file):
    for run in parse_runs(["--seeds", "2", "--seed", "5"]):
        assert run.to_settings() == {"model": "cnn", "recipe": "fast", "seed": run.training.seed, "split_seed": 5}


def test_a_run_is_described_by_the_values_that_differ_from_its_recipe():
    start = {"model": "cnn", "recipe": "fast", "seed": 42, "split_seed": 42}
    assert make_run().to_settings() == start
    assert make_run(model="vit", recipe="reference").to_settings() == start | {"model": "probe", "recipe": "reference"}
    assert make_run(epochs=20, lr=1).to_settings() == start | {"learning_rate": 1.0, "num_train_epochs": 20.0}
    changed = make_run()
    changed.data.max_train_samples, changed.training.patience = 100, 7
    assert changed.to_settings() == start | {"max_train_samples": 100, "patience": 7}


def test_a_training_run_leaves_its_file_in_its_folder(dataset_folder, tmp_path):
    small_run(dataset_folder, tmp_path / "run", num_train_epochs=1)
    again = parse_run(["--config", str(tmp_path / "run" / "config.yaml"), "--output_dir", str(tmp_path / "other")])
    assert again.data.dataset == str(dataset_folder)
    assert again.training.num_train_epochs == 1
    assert "learning_rate" not in read_config_file(tmp_path / "run" / "config.yaml")
    same = ["--config", str(tmp_path / "run" / "config.yaml"), "--output_dir", str(tmp_path / "run"), "--resume"]
    check_same_run(parse_run(same))
    with pytest.raises(InputError, match=r"cannot be resumed with other settings: --patience was \d+, is 3\."):
        check_same_run(parse_run([*same, "--patience", "3"]))


@pytest.mark.hostile
def test_a_settings_file_with_nested_aliases_is_refused(file):
    file.write_text(
        "a: &a [x, x]\n" + "".join(f"{n}: &{n} [*{p}, *{p}]\n" for p, n in zip("abcdef", "bcdefg", strict=True))
    )
    assert attempt(lambda: read_config_file(file)) is None
