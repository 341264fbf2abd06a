"""--optim_args, checked before a run begins: transformers passes over a name that the optimizer does not have."""

from __future__ import annotations

from typing import Any

from hfprobe.system.errors import InputError, first_line, shorten, suggest
from hfprobe.system.ranges import SHARE, Range

FORM = "name=value, with commas between several, such as momentum=0.9,nesterov=true"
COUNT, NUMBER, SMALL = Range(1, 10**9), Range(-(10**9), 10**9), Range(0, 1)
LOW_RANK = {"rank": COUNT, "update_proj_gap": COUNT, "scale": NUMBER, "proj_type": str}
ADEMAMIX = {"beta3": SHARE, "alpha": NUMBER, "t_alpha": COUNT, "t_beta3": COUNT}
# Beginning of a value of --optim -> the settings that transformers reads for it, each with its range or type. Left out
# is what has a flag of its own, and what transformers reads as another value than the one in the text.
SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": SHARE, "dampening": SMALL, "nesterov": bool},
    "adagrad": {"lr_decay": Range(0, 1000), "eps": SMALL},
    "rmsprop": {"momentum": SHARE, "alpha": SHARE, "eps": SMALL, "centered": bool},
    "rmsprop_": {},
    "galore": LOW_RANK,
    "apollo": LOW_RANK | {"proj": str, "scale_type": str},
    "ademamix": ADEMAMIX,
    "paged_ademamix": ADEMAMIX,
    "grokadamw": dict.fromkeys(
        ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping"), NUMBER
    ),
    "schedule_free": {"weight_lr_power": NUMBER, "r": NUMBER},
    "stable_adamw": {"max_lr": NUMBER},
    "adamw_torch_4bit": {"bf16_stochastic_round": bool},
    "adamw_torch_8bit": {"bf16_stochastic_round": bool},
    "adamw_anyprecision": {"use_kahan_summation": bool}
    | dict.fromkeys(("momentum_dtype", "variance_dtype", "compensation_buffer_dtype"), str),
}
FLAGS = {"lr": "--learning_rate", "learning_rate": "--learning_rate", "weight_decay": "--weight_decay"}
ADAM_FLAGS = {"beta1": "--adam_beta1", "beta2": "--adam_beta2", "eps": "--adam_epsilon"}
WITHOUT_MOMENTS = ("sgd", "adagrad", "rmsprop", "adafactor")  # beginnings of the optimizers that ignore ADAM_FLAGS


def settings_of(optim: str) -> dict[str, Any]:
    """The settings of --optim_args that an optimizer has: name -> Range, or bool or str."""
    return next((SETTINGS[name] for name in sorted(SETTINGS, reverse=True) if optim.startswith(name)), {})


def check_optim_args(arguments: Any) -> None:
    """Check that the optimizer of a run has each setting of --optim_args, and takes its value.

    Args:
        arguments: RunArguments, once transformers has read them.

    Raises:
        InputError: --optimizer or --optim reads no --optim_args; an unknown name, or one with a flag of its own; an
            invalid value.
    """
    if arguments.optim_args is None:
        return
    optim, text = arguments.optim.value, arguments.optim_args.replace(" ", "")  # as transformers reads it
    if arguments.optimizer != "optim":
        raise InputError(
            f"--optim_args is {shorten(text, 100)}, and --optimizer {arguments.optimizer} does not read it. Leave it "
            "out, or pass --optimizer optim and --optim."
        )
    known = settings_of(optim)
    values: dict[str, Any] = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not (name and equals and value) or "=" in value:
            raise InputError(f"--optim_args is {shorten(text, 100)}; allowed: {FORM}.")
        if name not in known:
            raise InputError(f"--optim_args has '{shorten(name, 100)}', {_explain(name, known, optim=optim)}")
        if name in values:
            raise InputError(f"--optim_args sets {name} twice; allowed: each name once.")
        values[name] = _read(name, value, known[name])
    _try(optim, values)


def _explain(name: str, known: dict[str, Any], *, optim: str) -> str:
    flags = FLAGS if optim.startswith(WITHOUT_MOMENTS) else FLAGS | ADAM_FLAGS
    if name in flags:
        return f"which has a flag of its own. Pass {flags[name]}."
    if not known:
        return f"but --optim {optim} has no settings there. Leave it out."
    remedy = suggest(name, known, otherwise=f"It has: {', '.join(known)}.")
    return f"which --optim {optim} does not have. {remedy}"


def _read(name: str, text: str, allowed: Any) -> Any:
    if allowed is str:
        return text
    value: Any
    if allowed is bool:
        value = {"true": True, "false": False}.get(text.lower())
        fits = value is not None
    else:
        try:
            value = int(text) if allowed is COUNT else float(text)
        except ValueError:
            value = None
        fits = value is not None and value in allowed
    if not fits:
        what = "true or false" if allowed is bool else f"{'a whole number, ' if allowed is COUNT else ''}{allowed}"
        raise InputError(f"--optim_args sets {name} to {shorten(text, 100)}; allowed: {what}.")
    return value


def _try(optim: str, values: dict[str, Any]) -> None:
    """Make one of torch's optimizers with these settings, which may not go together."""
    import torch

    kinds: dict[str, Any] = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "rmsprop": torch.optim.RMSprop}
    if optim in kinds:
        try:
            kinds[optim]([torch.zeros(1)], lr=1.0, **values)
        except ValueError as error:
            raise InputError(
                f"--optim_args cannot be used: {shorten(first_line(error))}. Change its values."
            ) from error
