"""Variants of the recipe `fast` that no flag has: validation accuracy of one training of SimpleCNN per call.

    python benchmarks/cnn_variants.py --seed 42
    python benchmarks/cnn_variants.py --lookahead --bn_bias_rate 4 --bn_momentum 0.4
    python benchmarks/cnn_variants.py --muon_linear 0.002 --brightness 0.14 --contrast 0.13 --dropout 0.35
    python benchmarks/cnn_variants.py --cutmix 0.7 --brightness 0.14 --contrast 0.13 --epochs 60

Screening for a recipe: what wins here becomes a setting, what loses stays in RESULTS.md. It is the training of
`hfprobe train --model cnn` without the Trainer, in bfloat16 autocast and in one process; test is not read. 20 epochs
take 8 to 15 minutes on one core with native bfloat16 support.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import nn
from torch.nn import functional

from hfprobe.data.pixels.store import ImageBatches
from hfprobe.data.pixels.transforms import keyed_uniform
from hfprobe.data.splits.images import load_images
from hfprobe.models import build_model, find_family
from hfprobe.settings.run_config import make_run
from hfprobe.system.machine import keep_freed_memory
from hfprobe.training.optimizers import NEWTON_SCHULZ, NEWTON_SCHULZ_STEPS, Muon


class VariantMuon(Muon):
    """Muon with another rate for the biases of BatchNorm, and for the first linear layer too."""

    def __init__(self, model: nn.Module, options: argparse.Namespace, **settings: Any):
        super().__init__(model, **settings)
        self.linear = model.classifier[1].weight if options.muon_linear else None
        self.buffer = None if self.linear is None else torch.zeros_like(self.linear)
        self.rate, self.decay = options.muon_linear, settings["weight_decay"]
        self.share = 1.0  # of the schedule
        biases = [module.bias for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        known = {id(bias) for bias in [*biases, self.linear]}
        for group in self.param_groups:
            group["params"] = [weight for weight in group["params"] if id(weight) not in known]
        rate = options.bn_bias_rate * settings["learning_rate"]
        self.add_param_group({"params": biases, "momentum": None, "weight_decay": 0.0, "lr": rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if self.linear is not None and self.buffer is not None:
            gradient = self.linear.grad
            self.buffer.mul_(0.9).add_(gradient)
            direction = gradient.add(self.buffer, alpha=0.9)
            update = zeropower_via_newtonschulz(direction, NEWTON_SCHULZ_STEPS, NEWTON_SCHULZ, dtype=torch.bfloat16)
            rate = self.share * self.rate
            # The scale brings a step to the length of one of AdamW (Liu et al., "Muon is scalable", 2025).
            self.linear.mul_(1 - rate * self.decay).sub_(update, alpha=rate * 0.2 * max(self.linear.shape) ** 0.5)
        return super().step(closure)


class Lookahead:
    """Slow weights that follow every fifth step, ever more slowly, and replace the fast ones (Jordan, 2024)."""

    def __init__(self, model: nn.Module):
        self.slow = {name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()}

    def follow(self, model: nn.Module, share: float) -> None:
        for name, value in model.state_dict().items():
            if name in self.slow:
                value.copy_(self.slow[name].lerp_(value, 1 - 0.95**5 * share**3))


def distort(pixels: torch.Tensor, *, options: argparse.Namespace, epoch: int, index: np.ndarray) -> torch.Tensor:
    """Change brightness and contrast of normalised images (B, 3, H, W) by amounts keyed by (seed, epoch, index)."""
    draws = torch.from_numpy(keyed_uniform(seed=options.seed + 77, epoch=epoch, index=index, draws=2)).float()
    shift, factor = ((2 * draws[:, at] - 1)[:, None, None, None] for at in (0, 1))
    mean = pixels.mean((1, 2, 3), keepdim=True)
    # Brightness is a share of the range of pixels, which is about 4 standard deviations.
    return (pixels - mean) * (1 + factor * options.contrast) + mean + 4 * shift * options.brightness


def cutmix(
    pixels: torch.Tensor, targets: torch.Tensor, *, options: argparse.Namespace, epoch: int, index: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace a rectangle of some images by that of another one in the batch (Yun et al., "CutMix", ICCV 2019).

    Args:
        pixels: (B, 3, H, W).
        targets: (B, C) probabilities, which are mixed as the areas are.
    """
    height, width = pixels.shape[2:]
    draws = keyed_uniform(seed=options.seed + 78, epoch=epoch, index=index, draws=4)
    side = np.sqrt(draws[:, 1]) * (draws[:, 0] < options.cutmix)  # of the image's side; 0: not mixed
    first = [np.round((draws[:, 2 + axis] * (1 - side)) * size) for axis, size in enumerate((height, width))]
    last = [at + np.round(side * size) for at, size in zip(first, (height, width), strict=True)]
    rows, columns = (
        torch.from_numpy((np.arange(size) >= first[axis][:, None]) & (np.arange(size) < last[axis][:, None]))
        for axis, size in enumerate((height, width))
    )
    inside = rows[:, :, None] & columns[:, None, :]  # (B, H, W)
    share = inside.flatten(1).float().mean(1)[:, None]
    pixels = torch.where(inside[:, None], pixels.roll(1, 0), pixels)
    return pixels, torch.lerp(targets, targets.roll(1, 0), share)


@torch.inference_mode()
def evaluate(model: nn.Module, batches: ImageBatches) -> dict[str, float]:
    """Accuracy, and the cross-entropy at the temperature that is best for these images."""
    model.eval()
    parts = []
    for start in range(0, len(batches), 500):
        batch = batches.__getitems__(range(start, min(start + 500, len(batches))))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            parts.append((model(batch["pixel_values"]).logits.float(), batch["labels"]))
    model.train()
    logits, labels = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    loss = min(float(functional.cross_entropy(logits * factor, labels)) for factor in np.geomspace(0.3, 4, 60))
    return {"accuracy": float((logits.argmax(-1) == labels).float().mean()), "loss": loss}


def train(options: argparse.Namespace) -> dict[str, Any]:
    own = {name: getattr(options, name) for name in ("seed", "epochs", "dropout", "batch_size")}
    config = make_run(model="cnn", split_seed=42, **own)
    images = load_images(config.data, seed=42)
    config = config.for_images(images)
    torch.manual_seed(options.seed)
    model, processor = build_model("cnn", labels=images.class_names, options=config.model)
    splits = images.decode("train", "validation", processor=processor)
    train, held_out = (ImageBatches(splits.part(name), processor=processor) for name in ("train", "validation"))
    find_family("cnn").initialize(model, options=config.model, images=train)
    train.augment, train.seed = config.data.augmentation, options.seed
    model.to(memory_format=torch.channels_last).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = options.bn_momentum
    arguments = config.training
    settings: dict[str, Any] = {"learning_rate": arguments.learning_rate, "momentum": arguments.muon_momentum}
    settings |= {"weight_decay": options.weight_decay, "muon_learning_rate": arguments.muon_learning_rate}
    optimizer = VariantMuon(model, options, **settings)
    rates = [group["lr"] for group in optimizer.param_groups]
    size = arguments.per_device_train_batch_size
    steps, done = options.epochs * -(-len(train) // size), 0
    lookahead = Lookahead(model) if options.lookahead else None
    start, found = time.perf_counter(), []
    for epoch in range(options.epochs):
        train.set_epoch(epoch)
        right = 0
        order = np.random.default_rng((options.seed, epoch)).permutation(len(train))
        for positions in np.split(order, range(size, len(order), size)):
            batch = train.__getitems__(positions)
            pixels = batch["pixel_values"]
            targets = functional.one_hot(batch["labels"], model.config.num_labels).float()
            if options.brightness or options.contrast:
                pixels = distort(pixels, options=options, epoch=epoch, index=train.split.index[positions])
            if options.cutmix and epoch < options.cutmix_until * options.epochs:
                drawn: dict[str, Any] = {"epoch": epoch, "index": train.split.index[positions]}
                pixels, targets = cutmix(pixels, targets, options=options, **drawn)
            warmup = arguments.warmup_steps * steps
            optimizer.share = min(done / warmup, (steps - done) / (steps - warmup))
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * optimizer.share
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(pixels.contiguous(memory_format=torch.channels_last)).logits
            loss = functional.cross_entropy(logits.float(), targets, label_smoothing=options.label_smoothing)
            right += int((logits.argmax(-1) == batch["labels"]).sum())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            if lookahead is not None and done % 5 == 0:
                lookahead.follow(model, done / steps)
        if (epoch + 1) % 5 == 0 or epoch + 1 == options.epochs:
            found.append({"epoch": epoch + 1, "train": right / len(train)} | evaluate(model, held_out))
            found[-1]["seconds"] = round(time.perf_counter() - start)
            print(found[-1], flush=True)
    return {"options": vars(options), "evaluations": found, "seconds": time.perf_counter() - start}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--weight_decay", type=float, default=0.05)
    parser.add_argument("--label_smoothing", type=float, default=0.1)
    parser.add_argument("--lookahead", action="store_true")
    parser.add_argument("--bn_bias_rate", type=float, default=1.0, help="factor on the rate of BatchNorm's biases")
    parser.add_argument("--bn_momentum", type=float, default=0.1, help="of BatchNorm's running statistics")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--cutmix", type=float, default=0.0, help="share of the images that are mixed")
    parser.add_argument("--cutmix_until", type=float, default=0.8, help="share of the epochs with mixed images")
    parser.add_argument("--muon_linear", type=float, default=0.0, help="rate of the first linear layer; 0: AdamW")
    parser.add_argument("--brightness", type=float, default=0.0, help="largest change, as a share of the range")
    parser.add_argument("--contrast", type=float, default=0.0, help="largest change, as a share")
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    print(json.dumps(train(make_parser().parse_args())))
