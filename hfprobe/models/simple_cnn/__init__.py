"""SimpleCNN: three convolution blocks and two linear layers, trained from scratch on images of 32 x 32 pixels or more.

The network of the reference experiment; it has 2,471,941 parameters with five labels, at every image size.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from hfprobe.data.arguments import SMALL_SIDE
from hfprobe.models.base import ModelFamily
from hfprobe.models.student import StudentOptions
from hfprobe.system.ranges import SHARE, Range
from hfprobe.system.setting import Setting, check_ranges

if TYPE_CHECKING:  # slow to import
    from transformers import ViTImageProcessor

    from hfprobe.data.pixels.store import ImageBatches
    from hfprobe.data.splits.images import Images
    from hfprobe.models.simple_cnn.modeling import SimpleCNN

IMAGES_FOR_FILTERS = 1000  # of 32 x 32 pixels; fewer if they are larger
IMAGE_SIZES = Range(32, 512, reason="three halvings of 32 leave the 4 x 4 that the linear layers read")
# Side in pixels of the input for images up to SMALL_SIDE, and for larger ones.
SMALL_INPUT, LARGE_INPUT = 32, 64

RECIPES: dict[str, dict[str, Any]] = {
    # 90.23 +/- 0.12 % on test (n = 3 seeds) after 20 epochs, about 20 minutes on two CPU cores. Muon for
    # the convolutions, AdamW for the rest, linear warm-up and decay; augmentation and first filters follow airbench
    # (Jordan, 2024).
    "fast": {
        "optimizer": "muon",
        "muon_learning_rate": 0.08,
        "muon_momentum": 0.6,
        "learning_rate": 2e-3,
        "weight_decay": 0.05,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "per_device_train_batch_size": 128,
        "num_train_epochs": 20,
        "patience": 20,
        "label_smoothing_factor": 0.1,
        "dropout": 0.2,
        "first_filters": "principal",
        "head_scale": 0.2,
        "crop_padding": "reflect",
        "flips": "alternating",
        "teacher": "none",
    },
    # All values are those of the reference experiment; Adam applies weight decay as an L2 penalty on every parameter.
    "reference": {
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 1e-4,
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"mode": "max", "factor": 0.5, "patience": 5},
        "per_device_train_batch_size": 128,
        "num_train_epochs": 100,
        "patience": 15,
        "dropout": 0.5,
        "first_filters": "random",
        "head_scale": 1.0,
        "teacher": "none",
    },
}
# `fast` with three times as many epochs: 91.31 +/- 0.19 % on test (n = 3 seeds), 28 minutes on two CPU cores.
RECIPES["best"] = RECIPES["fast"] | {"num_train_epochs": 60, "patience": 60}
# `fast`, with the probabilities of a teacher as targets.
RECIPES["distill"] = RECIPES["fast"] | {"teacher": "auto", "label_smoothing_factor": 0.0}


@dataclass(kw_only=True)
class SimpleCNNOptions(StudentOptions):
    """The flags of SimpleCNN."""

    dropout: float = field(
        metadata={
            "help": "Dropout probability of the 512 hidden units in training, in [0, 1).",
            "row": Setting(range=SHARE),
        }
    )
    first_filters: Literal["random", "principal"] = field(
        metadata={
            "help": "Initial weights of the first convolution. random: Kaiming normal; principal: principal components "
            "of patches of training images, each with both signs."
        },
    )
    head_scale: float = field(
        metadata={
            "help": "Factor on the initial weights of the last layer. With a small factor, the initial "
            "probabilities of all classes are nearly equal.",
            "row": Setting(range=Range(0, 1000, without=(0,))),
        }
    )

    image_size: int | None = field(
        default=None,
        metadata={
            "help": f"Side in pixels of the square images that the network reads, {IMAGE_SIZES.low} to "
            f"{IMAGE_SIZES.high}. Default: {SMALL_INPUT} if the shorter side of the training images has a median of at "
            f"most {SMALL_SIDE} pixels, otherwise {LARGE_INPUT}.",
            "row": Setting(range=IMAGE_SIZES),
        },
    )

    def __post_init__(self) -> None:
        check_ranges(self)

    def ignored_settings(self) -> dict[str, str]:
        """See `hfprobe.models.base.FamilyOptions`."""
        return {"image_size": "without a number, it is chosen from the images"} if self.image_size is None else {}


class SimpleCNNFamily(ModelFamily["SimpleCNN", SimpleCNNOptions]):
    name = "cnn"
    hub_name = "simple-cnn"
    Options = SimpleCNNOptions
    RECIPES = RECIPES

    @property
    def model_class(self) -> type[SimpleCNN]:
        from hfprobe.models.simple_cnn.modeling import SimpleCNN

        return SimpleCNN

    def complete_options(self, options: SimpleCNNOptions, *, images: Images) -> SimpleCNNOptions:
        if options.image_size is not None:
            return options
        return replace(options, image_size=SMALL_INPUT if images.median_side <= SMALL_SIDE else LARGE_INPUT)

    def build(self, *, options: SimpleCNNOptions, labels: list[str]) -> tuple[SimpleCNN, ViTImageProcessor]:
        import torch

        from hfprobe.models.simple_cnn.modeling import SimpleCNN, SimpleCNNConfig

        config = SimpleCNNConfig(
            image_size=options.image_size or SMALL_INPUT,
            dropout=options.dropout,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        model = SimpleCNN(config)
        with torch.no_grad():
            model.classifier[-1].weight.mul_(options.head_scale)
        return model, self.processor_for(model)

    def initialize(self, model: SimpleCNN, *, options: SimpleCNNOptions, images: ImageBatches) -> None:
        if options.first_filters == "principal":
            enough = max(100, IMAGES_FOR_FILTERS * SMALL_INPUT**2 // model.config.image_size**2)
            some = range(min(len(images), enough))
            model.set_principal_filters(images.__getitems__(some)["pixel_values"])

    def processor_for(self, model: SimpleCNN) -> ViTImageProcessor:
        from hfprobe.models.simple_cnn.modeling import build_processor

        return build_processor(model.config.image_size)


FAMILY = SimpleCNNFamily()
