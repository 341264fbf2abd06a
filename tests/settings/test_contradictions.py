import re

import pytest

from hfprobe.cli.run_flags import parse_run
from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError

CONTRADICTIONS = [
    (
        ["--metric_for_best_model", "recall"],
        "--metric_for_best_model is recall, which no evaluation measures. Allowed: accuracy, macro_f1, "
        "balanced_accuracy, loss.",
    ),
    (
        ["--metric_for_best_model", "loss", "--greater_is_better", "true"],
        "--greater_is_better is True, but a good loss is a small one: the worst epoch would be kept. Leave it out.",
    ),
    (
        ["--save_strategy", "steps"],
        "--save_strategy is steps and --eval_strategy epoch (the default): the best epoch can only be kept where both "
        "happen together. Pass the same value for both, or --load_best_model_at_end false.",
    ),
    (
        ["--lr_scheduler_type", "reduce_lr_on_plateau"],
        "The plateau schedule has the mode min, but a good accuracy is a large one: the learning rate would fall while "
        'the model improves. Pass --lr_scheduler_kwargs \'{"mode": "max"}\'.',
    ),
    (
        ["--optim", "adafactor"],
        "--optim is adafactor, but --optimizer muon (the recipe) is used instead. Pass --optimizer optim.",
    ),
    (
        ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "6", "--eval_steps", "3"],
        "--save_steps is 6 and --eval_steps 3: the best step can only be kept where it is saved. Pass the same "
        "value for both, or --load_best_model_at_end false.",
    ),
    (
        ["--save_strategy", "steps", "--eval_strategy", "steps", "--logging_steps", "50"],
        "--save_steps is 500 (the default) and --logging_steps, which --eval_steps follows, is 50: the best step can "
        "only be kept where it is saved. Pass the same value for both, or "
        "--load_best_model_at_end false.",
    ),
    (
        ["--lr_scheduler_type", "greedy"],
        "The greedy schedule has the mode min, but a good accuracy is a large one: the learning rate would fall while "
        'the model improves. Pass --lr_scheduler_kwargs \'{"mode": "max"}\'.',
    ),
    (
        ["--prediction_loss_only"],
        "--prediction_loss_only leaves no predictions to measure. Leave it out.",
    ),
    (
        ["--recipe", "reference", "--metric_for_best_model", "loss", "--lr_scheduler_kwargs", '{"mode": "max"}'],
        "The plateau schedule has the mode max, but a good loss is a small one: the learning rate would fall while the "
        'model improves. Pass --lr_scheduler_kwargs \'{"mode": "min"}\'.',
    ),
    (
        ["--model", "probe", "--feature_cache", "off"],
        "--head exact (the recipe) needs the cached features. Add --head sgd to --feature_cache off.",
    ),
    (
        ["--dataloader_in_order", "false"],
        "--dataloader_in_order false trains on batches in the order in which the workers finish them, which no other "
        "run repeats. Leave it out.",
    ),
    (["--dataloader_drop_last"], "--dataloader_drop_last leaves images out of evaluations too. Leave it out."),
    (
        ["--label_names", "foo"],
        "--label_names names columns, and hfprobe's batches have none but labels. Leave it out.",
    ),
    (
        ["--batch_eval_metrics"],
        "--batch_eval_metrics measures in parts; hfprobe measures all predictions at once. Leave it out.",
    ),
    (
        ["--precision", "fp32", "--bf16"],
        "--bf16 and --precision fp32 contradict each other. Leave one of them out.",
    ),
]


@pytest.mark.parametrize(("flags", "message"), CONTRADICTIONS)
def test_contradicting_flags_are_refused(flags, message):
    if flags[0] == "--dataloader_in_order" and not hasattr(RunArguments, "dataloader_in_order"):
        pytest.skip("this version of transformers does not have the flag")
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        parse_run(["--output_dir", "unused", *flags])


@pytest.mark.parametrize(
    "flags",
    [
        ["--metric_for_best_model", "loss"],
        ["--recipe", "reference", "--metric_for_best_model", "eval_loss"],
        ["--metric_for_best_model", "loss", "--greater_is_better", "false"],
        ["--model", "probe", "--head", "sgd", "--optimizer", "sgd"],
        ["--metric_for_best_model", "eval_macro_f1"],
        ["--save_strategy", "steps", "--load_best_model_at_end", "false"],
        ["--save_strategy", "best"],
        ["--save_strategy", "steps", "--eval_strategy", "steps", "--save_steps", "0.5", "--eval_steps", "0.5"],
        ["--save_strategy", "steps", "--eval_strategy", "steps"],
        ["--save_strategy", "best", "--eval_strategy", "steps", "--eval_steps", "3"],
        ["--optim", "adafactor", "--optimizer", "optim"],
        ["--lr_scheduler_type", "reduce_lr_on_plateau", "--lr_scheduler_kwargs", '{"mode": "max"}'],
    ],
)
def test_consistent_flags_are_accepted(flags, caplog):
    config = parse_run(["--output_dir", "unused", *flags])
    config.warn_about_ignored()
    assert not caplog.messages
    training = config.training
    assert training.greater_is_better is ("loss" not in training.metric_for_best_model)
    if training.lr_scheduler_type == "reduce_lr_on_plateau":
        assert (training.lr_scheduler_kwargs["mode"] == "max") is training.greater_is_better
    assert make_run(output_dir="unused", **config.to_settings()).to_dict() == config.to_dict()


def test_all_contradictions_are_reported_at_once():
    with pytest.raises(InputError) as error:
        parse_run(["--output_dir", "unused", *CONTRADICTIONS[1][0], *CONTRADICTIONS[2][0]])
    assert str(error.value) == f"(1) {CONTRADICTIONS[1][1]} (2) {CONTRADICTIONS[2][1]}"
