"""The values of `--optimizer` beside `optim`: the reference experiment's Adam and SGD, and Muon."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from hfprobe.settings.arguments import RunArguments

# Of the quintic Newton-Schulz iteration (Jordan et al., "Muon", 2024): singular values end between 0.7 and 1.2.
NEWTON_SCHULZ = [(3.4445, -4.7750, 2.0315)]
NEWTON_SCHULZ_STEPS = 3


class Muon(torch.optim.AdamW):
    """Orthogonalised momentum for the filters of convolutions, AdamW for every other parameter.

    As in airbench94_muon (Jordan, 2024): Nesterov momentum, its (out, in x h x w) matrix brought to singular values
    near one by Newton-Schulz steps, and filters kept at Frobenius norm sqrt(out), so that the learning rate of
    filters is the relative length of a step. It suits filters that BatchNorm follows, which removes their scale.

    Of timm's `muon` only the iteration is used: the optimizer has no filter norm, and it computes in bfloat16 on every
    device. On a CPU without native bfloat16 support, a step on SimpleCNN took 20 times as long (benchmarks/muon.py).

    Args:
        model: its convolutions' weights are filters.
        learning_rate, weight_decay, betas, eps: of AdamW. Filters are not decayed: their norm is fixed.
        muon_learning_rate: of the filters; a schedule scales both alike.
        momentum: of the filters.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        muon_learning_rate: float,
        momentum: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ):
        filters = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
        filters = [weight for weight in filters if weight.requires_grad]
        known = {id(weight) for weight in filters}
        rest = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in known]
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in rest if weight.ndim > 1], "momentum": None},
            {"params": [weight for weight in rest if weight.ndim <= 1], "momentum": None, "weight_decay": 0.0},
            {"params": filters, "momentum": momentum, "lr": muon_learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=learning_rate, weight_decay=weight_decay, betas=betas, eps=eps)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = {}
        for group in self.param_groups:
            if group["momentum"] is not None:
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._step_filter(weight, lr=group["lr"], momentum=group["momentum"])
                        gradients[weight], weight.grad = weight.grad, None  # AdamW passes over it
        super().step()
        for weight, gradient in gradients.items():
            weight.grad = gradient
        return loss

    def _step_filter(self, weight: nn.Parameter, *, lr: float, momentum: float) -> None:
        from timm.optim.muon import zeropower_via_newtonschulz

        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros(())  # AdamW needs it to load a state
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["step"] += 1
        buffer = state["momentum_buffer"].mul_(momentum).add_(weight.grad)
        update = weight.grad.add(buffer, alpha=momentum).flatten(1)  # (out, in x h x w)
        dtype = torch.bfloat16 if weight.is_cuda else torch.float32
        update = zeropower_via_newtonschulz(update, NEWTON_SCHULZ_STEPS, NEWTON_SCHULZ, dtype=dtype)
        weight.mul_(len(weight) ** 0.5 / weight.norm()).sub_(update.view(weight.shape), alpha=lr)


def make_optimizer(name: str, model: nn.Module, arguments: RunArguments) -> torch.optim.Optimizer:
    """An optimizer over the trainable parameters of `model`.

    Args:
        name: adam and sgd are torch's: one parameter group, weight decay as an L2 penalty on everything; muon.
    """
    moments: dict[str, Any] = {"betas": (arguments.adam_beta1, arguments.adam_beta2), "eps": arguments.adam_epsilon}
    if name == "muon":
        return Muon(
            model,
            learning_rate=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
            muon_learning_rate=arguments.muon_learning_rate,
            momentum=arguments.muon_momentum,
            **moments,
        )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    values: dict[str, Any] = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
    if name == "adam":
        return torch.optim.Adam(parameters, **values, **moments)
    return torch.optim.SGD(parameters, momentum=0.9, **values)


def scale_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Multiply the learning rate of every parameter group, before a schedule is made for them."""
    # Some of transformers' schedules read the rate of `defaults` and not that of a group.
    for values in (optimizer.defaults, *optimizer.param_groups):
        if values.get("lr") is not None:
            values["lr"] *= factor
