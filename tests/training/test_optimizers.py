import re

import pytest
import torch

from hfprobe.cli.run_flags import parse_run
from hfprobe.models import build_model, find_family
from hfprobe.system.errors import InputError
from hfprobe.training.optimizers import Muon, make_optimizer
from hfprobe.training.trainer import ProbeTrainer

LEARNING_RATE = 0.12


def make(seed=0):
    torch.manual_seed(seed)
    model, _ = build_model("cnn", labels=list("abcde"), options=find_family("cnn").recipe_options())
    optimizer = Muon(
        model, learning_rate=2e-3, weight_decay=0.05, muon_learning_rate=LEARNING_RATE, momentum=0.6
    )  # fmt: skip
    return model, optimizer


def train(model, optimizer, steps, seed=1):
    torch.manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model.eval()(torch.randn(4, 3, 32, 32), labels=torch.tensor([0, 1, 2, 3])).loss.backward()
        optimizer.step()


@pytest.mark.usefixtures("whole_network")
def test_every_parameter_is_in_one_group_and_filters_have_their_own():
    model, optimizer = make()
    matrices, vectors, filters = (group["params"] for group in optimizer.param_groups)
    assert len(matrices + vectors + filters) == len(list(model.parameters()))
    assert {id(p) for p in matrices + vectors + filters} == {id(p) for p in model.parameters()}
    assert [tuple(weight.shape) for weight in filters] == [(64, 3, 3, 3), (128, 64, 3, 3), (256, 128, 3, 3)]
    assert all(weight.ndim == 2 for weight in matrices)
    assert [group["weight_decay"] for group in optimizer.param_groups[:2]] == [0.05, 0.0]
    assert [group["lr"] for group in optimizer.param_groups] == [2e-3, 2e-3, LEARNING_RATE]


@pytest.mark.usefixtures("whole_network")
def test_a_filter_moves_along_the_orthogonal_factor_of_its_gradient():
    model, optimizer = make()
    weight = model.features[4].weight  # (128, 64, 3, 3)
    left, _, right = torch.linalg.svd(torch.randn(128, 576), full_matrices=False)
    values = torch.linspace(0.3, 1, 128)
    weight.grad = (left * values @ right).view_as(weight)
    before = weight.detach() * 128**0.5 / weight.detach().norm()
    optimizer.step()
    step = ((before - weight.detach()) / LEARNING_RATE).flatten(1)
    factors = left.T @ step @ right.T  # diagonal where the singular vectors are the gradient's
    assert (factors - factors.diag().diag()).abs().max() < 1e-4
    # The interval that the iteration's authors give; the gradient's own reached from 0.3 to 1.
    assert factors.diag().min() > 0.65
    assert factors.diag().max() < 1.25
    assert before.norm().item() == pytest.approx(128**0.5, rel=1e-5)


def test_a_step_does_not_change_the_gradients():
    model, optimizer = make()
    train(model, optimizer, steps=1)
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_parameters_other_than_filters_are_updated_as_by_adamw():
    (model, optimizer), (other, _) = make(), make()
    groups = [
        {"params": [p for p in other.parameters() if p.ndim == 2]},
        {"params": [p for p in other.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=2e-3, weight_decay=0.05)
    train(model, optimizer, steps=1)
    train(other, adamw, steps=1)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs) == (mine.ndim != 4)


def test_a_restored_state_continues_bit_identically(tmp_path):
    model, optimizer = make()
    train(model, optimizer, steps=3)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    train(model, optimizer, steps=3, seed=2)
    resumed, again = make(seed=7)
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.load_state_dict(weights)
    again.load_state_dict(state)
    train(resumed, again, steps=3, seed=2)
    for mine, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--muon_learning_rate=0", "--muon_learning_rate is 0.0; allowed: more than 0, at most 1,000."),
        ("--muon_momentum=1", "--muon_momentum is 1.0; allowed: 0 or more, less than 1."),
    ],
)
def test_bad_values(flag, message):
    with pytest.raises(InputError, match=re.escape(message)):
        parse_run([flag])


@pytest.mark.parametrize(
    ("flags", "rates"),
    [
        ([], [2e-3, 2e-3, 0.08]),
        (["--optimizer", "adam"], [2e-3]),
        (["--optimizer", "optim"], [2e-3, 2e-3]),
        (["--optimizer", "optim", "--optim", "sgd", "--lr_scheduler_type", "polynomial"], [2e-3, 2e-3]),
    ],
)
def test_one_flag_scales_every_learning_rate(flags, rates, dataset_folder, tmp_path):
    for scale in (1, 0.5):
        argv = [*flags, "--lr_scale", str(scale), "--use_cpu", "--output_dir", str(tmp_path), "--warmup_steps", "0"]
        config = parse_run(argv)
        model, _ = build_model("cnn", labels=list("abcde"), options=config.model)
        trainer = ProbeTrainer(model=model, args=config.training, train_dataset=[0], eval_dataset=[0])
        trainer.create_optimizer_and_scheduler(num_training_steps=10)
        trainer.create_optimizer()  # another call leaves the rates alone
        found = [group["lr"] for group in trainer.optimizer.param_groups]
        assert found == pytest.approx([scale * rate for rate in rates])
        assert config.to_dict()["training"]["lr_scale"] == scale


@pytest.mark.parametrize("name", ["adam", "muon"])
def test_adams_own_flags_reach_the_optimizer(name):
    arguments = parse_run(["--adam_beta1", "0.8", "--adam_beta2", "0.9", "--adam_epsilon", "1e-5"]).training
    model, _ = build_model("cnn", labels=list("abcde"), options=find_family("cnn").recipe_options())
    for group in make_optimizer(name, model, arguments).param_groups:
        assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-5)
