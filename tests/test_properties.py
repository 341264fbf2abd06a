"""Whatever is given: an error in one line, or what was asked for. Never a traceback of another kind."""

import math

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers.trainer_utils import SchedulerType

from helpers.flags import PARSERS, attempt, fields_of, values_for
from helpers.images import CLASSES, load_splits
from helpers.runs import assert_same_run
from hfprobe.cli.run_flags import parse_run, parse_runs
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.classes import keep_classes
from hfprobe.data.splits.drawing import draw_part, stratified_subset
from hfprobe.models import build_model, find_family
from hfprobe.settings.files import write_config_file
from hfprobe.settings.schedules import BY_METRIC
from hfprobe.training.refusals import setting_up
from hfprobe.training.trainer import ProbeTrainer

pytestmark = pytest.mark.hostile

# What changes the process that the tests run in, or asks for other processes or the network: parsed, not built.
NOT_BUILT = {"full_determinism", "torch_compile", "push_to_hub", "fsdp", "deepspeed", "debug", "use_cache", "fp16"}
VALUES = st.one_of(
    st.sampled_from(["-1", "0", "1", "2", "nan", "inf", "-inf", "1e309", "None", "true", "false", "auto", "cat", "{}"]),
    st.sampled_from(["epoch", "steps", "no", "best", "loss", "accuracy", "{'a'"]),
    st.sampled_from(
        ['{"mode": "max"}', '{"mode": 3}', '{"num_cycles": 2}', '{"power": 1e300}', "[]", "../x", "random"]
    ),
    st.integers(-(10**20), 10**20).map(str),
    st.integers(1, 9).map(str),
    st.floats().map(str),
    st.floats(0, 1).map(str),
    st.text(max_size=12),
)
RIGHT = {"lr_scheduler_type": SchedulerType, "optim": ["adamw_torch", "adafactor", "sgd", "rmsprop"]}
RIGHT |= {"lr_scheduler_kwargs": ['{"mode": "max"}', '{"num_cycles": 2}', '{"min_lr_rate": 0.1}', "{}"]}


def right_values(model, field):
    """Values of the type that a flag has, most of which it takes."""
    action = next(action for action in PARSERS[model]._actions if action.dest == field)
    if choices := RIGHT.get(field) or action.choices:
        return st.sampled_from([str(getattr(choice, "value", choice)) for choice in choices])
    numbers = {int: st.integers(1, 9).map(str), float: st.floats(0.01, 0.99).map(str)}
    return numbers.get(action.type, st.sampled_from(["true", "false", "x"]))


@st.composite
def flags(draw):
    """A model, and up to three of its flags, each with a value that it may have or not."""
    model = draw(st.sampled_from(sorted(PARSERS)))
    argv = ["--model", model]
    for field in draw(st.lists(st.sampled_from(fields_of(model)), max_size=3)):
        hostile = st.one_of(VALUES, st.sampled_from(values_for(model, field)))
        right = right_values(model, field)
        value = draw(st.one_of(right, right, right, hostile))
        argv.append(f"--{field}" if value is None else f"--{field}={value}")
    return argv


slow_inputs = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@settings(slow_inputs, max_examples=300)
@given(flags())
@example(["--recipe", "-inf"])
@example(["--lr_scheduler_kwargs", "[]", "--lr_scheduler_type", "reduce_lr_on_plateau"])
@example(["--optim_args", "x", "--optimizer", "optim"])
@example(["--optim", "lomo", "--optimizer", "optim"])
def test_a_command_line_is_refused_in_one_line_or_makes_runs_that_begin(network, tmp_path, argv):
    runs = attempt(lambda: parse_runs(argv))
    if runs is None:
        return
    assert runs
    arguments = runs[-1].training
    if any(getattr(arguments, name) for name in NOT_BUILT):
        return
    arguments.output_dir = str(tmp_path)
    attempt(lambda: begin(network, arguments))


@pytest.mark.slow
@settings(slow_inputs, max_examples=200)
@given(flags())
def test_the_file_of_any_run_repeats_it(tmp_path, argv):
    for run in attempt(lambda: parse_runs(argv)) or []:
        write_config_file(tmp_path / "run.yaml", run.to_settings())
        assert_same_run(run, parse_run(["--config", str(tmp_path / "run.yaml")]))


@pytest.fixture(scope="module")
def network():
    return build_model("cnn", labels=["a", "b"], options=find_family("cnn").recipe_options())[0]


def begin(network, arguments):
    """All of a run that comes before its first step, and its schedule until the last."""
    trainer = ProbeTrainer(model=network, args=arguments, train_dataset=[0], eval_dataset=[0])
    with setting_up():
        trainer.create_optimizer_and_scheduler(7)
        trainer.get_train_dataloader()
    if arguments.lr_scheduler_type.value not in BY_METRIC:
        for _ in range(7):
            trainer.lr_scheduler.step()
    assert all(0 <= group["lr"] < math.inf for group in trainer.optimizer.param_groups)


@slow_inputs
@given(
    classes=st.lists(st.sampled_from([*CLASSES, "owl", ""]), max_size=6),
    train=st.integers(-1, 300),
    validation=st.integers(-1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_chosen_classes_and_sizes_are_refused_or_applied(dataset_folder, classes, train, validation, seed):
    limits = {"max_train_samples": train, "max_eval_samples": validation}
    data = attempt(lambda: DataArguments(dataset=str(dataset_folder), classes=classes, **limits))
    splits = data and attempt(lambda: load_splits(data, seed=seed))
    if splits is None:
        return
    assert splits.class_names == classes
    whole = 32 * len(classes)  # of 40 images a class
    assert len(splits.train) == min(train, whole)
    assert len(splits.validation) == min(validation, 8 * len(classes))
    assert not set(splits.train.index) & set(splits.validation.index)
    assert set(splits.train.labels) == set(range(len(classes)))


@slow_inputs
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any), seed=st.integers(0, 2**32 - 1))
def test_any_sizes_of_classes_are_split_or_refused(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"class {number}" for number in range(len(counts))]
    features = datasets.Features(image=datasets.Value("int64"), label=datasets.ClassLabel(names=names))
    rows = datasets.Dataset.from_dict({"image": labels, "label": labels}, features=features)
    parts = attempt(lambda: draw_part(keep_classes(rows, classes=names, split="train"), seed=seed))
    if parts is None:
        assert min(counts) < 2
        return
    train, validation = (rows.add_column("index", labels * 0 + np.arange(len(labels))).select(part) for part in parts)
    assert sorted([*train["index"], *validation["index"]]) == list(range(len(labels)))
    for part in (train, validation):
        assert set(part["label"]) == set(range(len(counts)))


@slow_inputs
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    size=st.integers(-2, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_subset_is_refused_or_of_its_size_and_holds_every_class(labels, size, seed):
    labels = np.array(labels)
    subset = attempt(lambda: stratified_subset(labels, size=size, seed=seed))
    if subset is None:
        assert size < min(len(np.unique(labels)), len(labels))
        return
    assert len(subset) == min(size, len(labels))
    assert set(labels[subset]) == set(labels)
