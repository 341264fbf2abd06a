"""Whatever is given: an error in one line, or what was asked for. Never a traceback of another kind."""

import datasets
import numpy as np
from conftest import CLASSES, load_splits
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hfprobe.config import RunConfig, parse_run
from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits import keep_classes, split_rows, stratified_subset
from hfprobe.errors import InputError

FLAGS = [
    "--epochs", "--batch_size", "--lr", "--seed", "--seeds", "--classes", "--max_train_samples", "--max_eval_samples",
    "--dropout", "--head_scale", "--first_filters", "--muon_learning_rate", "--muon_momentum", "--crop_shift",
    "--crop_padding", "--flips", "--patience", "--histogram_epochs", "--save_strategy", "--eval_strategy",
    "--metric_for_best_model", "--greater_is_better", "--lr_scheduler_type", "--lr_scheduler_kwargs", "--warmup_steps",
    "--optim", "--optimizer", "--weight_decay", "--save_total_limit", "--label_smoothing_factor", "--bf16",
    "--dataloader_num_workers", "--recipe", "--model", "--split_seed", "--save_steps", "--eval_steps",
]  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["", "-1", "0", "1", "2", "nan", "inf", "-inf", "1e309", "None", "true", "false", "auto", "cat", "{}"]
    ),
    st.sampled_from(
        ["epoch", "steps", "no", "best", "loss", "accuracy", "cosine", "reduce_lr_on_plateau", "muon", "{'a'"]
    ),
    st.sampled_from(['{"mode": "max"}', '{"mode": 3}', "[]", "../x", "vit", "cnn", "reference", "fast", "random"]),
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)


def attempt(call):
    """What a call gives; None where it was refused with a text."""
    try:
        return call()
    except InputError as error:
        return None if str(error).strip() else error


slow_inputs = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])


@slow_inputs
@given(st.lists(st.tuples(st.sampled_from(FLAGS), VALUES), max_size=4))
@example([("--recipe", "-inf")])
@example([("--lr_scheduler_kwargs", "[]"), ("--lr_scheduler_type", "reduce_lr_on_plateau")])
def test_a_command_line_is_refused_in_one_line_or_makes_a_run(flags):
    argv = ["--output_dir", "unused", *(part for flag in flags for part in flag)]
    assert isinstance(attempt(lambda: parse_run(argv)), RunConfig | None)


@slow_inputs
@given(
    classes=st.lists(st.sampled_from([*CLASSES, "owl", ""]), max_size=6),
    train=st.integers(-1, 300),
    validation=st.integers(-1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_chosen_classes_and_sizes_are_refused_or_come_out_as_asked(dataset_folder, classes, train, validation, seed):
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
    parts = attempt(lambda: split_rows(keep_classes(rows, classes=names, split="train"), seed=seed))
    if parts is None:
        assert min(counts) < 2
        return
    train, validation = parts
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
