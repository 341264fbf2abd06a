import inspect
import re

import pytest
import torch
from transformers import Trainer
from transformers.training_args import OptimizerNames

from hfprobe.settings.optim_args import SETTINGS, settings_of
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError


@pytest.mark.parametrize(
    ("optim", "given", "message"),
    [
        ("sgd", "momentun=0.9", "--optim_args has 'momentun', which --optim sgd does not have. Did you mean momentum?"),
        (
            "sgd",
            "alpha=1",
            "--optim_args has 'alpha', which --optim sgd does not have. It has: momentum, dampening",
        ),
        ("sgd", "momentum", "--optim_args is momentum; allowed: name=value, with commas between several, such as "),
        *(
            ("sgd", given, "; allowed: name=value, with")
            for given in ("momentum=", "=1", "momentum=0.9,", "a=b=c", ",")
        ),
        ("sgd", "momentum=0.9,momentum=0.5", "--optim_args sets momentum twice; allowed: each name once."),
        ("sgd", "momentum=x", "--optim_args sets momentum to x; allowed: 0 or more, less than 1."),
        ("sgd", "momentum=nan", "--optim_args sets momentum to nan; allowed: 0 or more, less than 1."),
        ("sgd", "momentum=-1", "--optim_args sets momentum to -1; allowed: 0 or more, less than 1."),
        ("sgd", "nesterov=on", "--optim_args sets nesterov to on; allowed: true or false."),
        (
            "sgd",
            "nesterov=true",
            "--optim_args cannot be used: Nesterov momentum requires a momentum and ",
        ),
        ("sgd", "weight_decay=0.1", "'weight_decay', which has a flag of its own. Pass --weight_decay."),
        ("sgd", "lr=0.1", "'lr', which has a flag of its own. Pass --learning_rate."),
        ("sgd", "eps=0.1", "'eps', which --optim sgd does not have. It has: "),
        ("adamw_torch", "beta1=0.1", "'beta1', which has a flag of its own. Pass --adam_beta1."),
        ("adamw_torch", "momentum=0.9", "'momentum', but --optim adamw_torch has no settings there. Leave it out."),
        ("rmsprop_bnb", "momentum=0.9", "'momentum', but --optim rmsprop_bnb has no settings there. Leave it out."),
        ("galore_adamw", "rank=1.5", "--optim_args sets rank to 1.5; allowed: a whole number, 1 to 1,000,000,000."),
    ],
)
def test_optim_args_that_would_have_no_effect_are_refused(optim, given, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make_run(optimizer="optim", optim=optim, optim_args=given)


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "muon"])
def test_optim_args_beside_optimizer_are_refused(optimizer):
    message = f"^--optim_args is momentum=0.9, and --optimizer {optimizer} (.* )?does not read it. Leave it out, or "
    with pytest.raises(InputError, match=message):
        make_run(optimizer=optimizer, optim_args="momentum = 0.9")


@pytest.mark.parametrize(
    ("optim", "given", "expected"),
    [
        ("sgd", "momentum=0.9, nesterov=True", {"momentum": 0.9, "nesterov": True}),
        ("sgd", "momentum=0.5,dampening=0.1,nesterov=false", {"momentum": 0.5, "dampening": 0.1, "nesterov": False}),
        ("adagrad", "lr_decay=0.1,eps=1e-3", {"lr_decay": 0.1, "eps": 1e-3}),
        ("rmsprop", "alpha=.9,centered=true,momentum=0.1", {"alpha": 0.9, "centered": True, "momentum": 0.1}),
    ],
)
def test_every_value_of_optim_args_takes_effect(optim, given, expected):
    training = make_run(optimizer="optim", optim=optim, optim_args=given).training
    kind, values = Trainer.get_optimizer_cls_and_kwargs(training)
    made = kind([torch.zeros(1)], **values)
    assert {name: made.param_groups[0][name] for name in expected} == expected


def test_transformers_reads_each_setting():
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS

    checked = set()
    for optim in OptimizerNames:
        source = inspect.getsource(_OPTIMIZER_HANDLERS[optim])
        for name in settings_of(optim.value):
            assert f'"{name}"' in source, (optim.value, name)
            checked.add(name)
    assert checked == {name for settings in SETTINGS.values() for name in settings}
