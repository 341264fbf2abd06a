"""Compare optimizer steps of hfprobe's Muon on SimpleCNN with AdamW and with timm's Muon.

Both Muons run three Newton-Schulz iterations, on the convolutions only.

python benchmarks/muon.py        # a minute on two CPU cores
"""

from __future__ import annotations

import timm.optim
import torch
from side_by_side import describe_machine, describe_ratio, make_parser, measure

from hfprobe.models import build_model, find_family
from hfprobe.system.machine import keep_freed_memory, use_every_core
from hfprobe.training.optimizers import NEWTON_SCHULZ_STEPS, Muon

STEPS = 5


def main() -> None:
    arguments = make_parser(__doc__).parse_args()
    use_every_core()
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model("cnn", labels=list("abcde"), options=find_family("cnn").recipe_options())[0].to(
        device, memory_format=torch.channels_last
    )
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    filters = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    rest = [parameter for parameter in model.parameters() if parameter.ndim != 4]
    optimizers = {
        "AdamW": torch.optim.AdamW(model.parameters()),
        "hfprobe": Muon(model, learning_rate=2e-3, weight_decay=0.05, muon_learning_rate=0.08, momentum=0.6),
        "timm": timm.optim.Muon(
            [{"params": filters, "use_muon": True}, {"params": rest, "use_fallback": True}],
            ns_steps=NEWTON_SCHULZ_STEPS,
        ),
    }
    ways = {name: lambda step=optimizer.step: [step() for _ in range(STEPS)] for name, optimizer in optimizers.items()}
    seconds = measure(ways, rounds=arguments.rounds)
    print(f"\nSimpleCNN, {STEPS} steps of the optimizer alone; {describe_machine()}")
    for other in ("timm", "AdamW"):
        print(f"hfprobe / {other}, speed: {describe_ratio(seconds[other], seconds['hfprobe'])}")


if __name__ == "__main__":
    main()
