from dataclasses import fields, replace

import pytest
from transformers import TrainingArguments

from hfprobe.settings import training_arguments
from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.run_config import make_run
from hfprobe.settings.training_arguments import CHECKED, PASSED, REFUSED
from hfprobe.system.errors import InputError
from hfprobe.system.setting import UNCHANGED, rows_of

# Of other allowed versions of transformers than the installed one.
OTHER_VERSIONS = {"warmup_ratio", "logging_dir", "activation_checkpointing", "activation_checkpointing_kwargs"} | {
    "dataloader_multiprocessing_context", "dataloader_in_order", "ddp_static_graph", "trackio_bucket_id",
    "trackio_static_space_id",
}  # fmt: skip


def test_every_training_argument_of_transformers_has_one_row():
    names = [name for table in (CHECKED, REFUSED, PASSED) for name in table]
    assert len(names) == len(set(names))
    known = {field.name for field in fields(TrainingArguments)}
    own = {name for name, field in RunArguments.__dataclass_fields__.items() if "row" in field.metadata}
    assert known - own <= set(names)
    assert set(names) - known <= OTHER_VERSIONS


def test_a_setting_that_a_row_forgets_is_compared_by_resume_and_repeated(monkeypatch):
    monkeypatch.delitem(training_arguments.ROWS, "ddp_timeout")
    row = rows_of(RunArguments)["ddp_timeout"]
    assert (row.may_differ, row.repeat, row.range) == ("", "changed", None)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_setting_is_an_error_with_its_reason(name):
    if name not in RunArguments.__dataclass_fields__:
        pytest.skip("this version of transformers does not have the setting")
    default = make_run().training
    values = {
        "dataloader_multiprocessing_context": "fork", "label_names": ["foo"], "neftune_noise_alpha": 1.0,
        "resume_from_checkpoint": "run", "train_sampling_strategy": "group_by_length",
    }  # fmt: skip
    value = values.get(name, not getattr(default, name))
    with pytest.raises(InputError, match=rf"^--{name} \S.*\. Leave it out\.$"):
        make_run(**{name: value})


def test_every_row_states_rules_that_can_be_evaluated():
    arguments = make_run(report_to="none").training
    for name, row in rows_of(RunArguments).items():
        for case in row.ignored:
            assert case.when is None or case.when(arguments) in (True, False), name
        assert row.range is None or row.default is UNCHANGED or row.default in row.range, name


def test_a_run_is_not_changed_by_a_run_that_is_made_from_it():
    config = make_run()
    other = config.with_training(learning_rate=1.0)
    assert (config.training.learning_rate, other.training.learning_rate) == (make_run().training.learning_rate, 1.0)
    assert replace(other, training=config.training) == config
