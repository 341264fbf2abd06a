"""SimpleCNN: three convolution blocks and two linear layers, trained from scratch on images of 32 x 32 pixels or more.

It has 2,471,941 parameters with five labels, at every image size. The network is that of the reference experiment: 3 x
(Conv3x3, BatchNorm, ReLU, MaxPool) with 64, 128, 256 channels, then 4096 -> 512 -> labels with dropout. For images
larger than 32 x 32, the output of the last block is averaged to 4 x 4.
"""

from __future__ import annotations

from reprlib import repr as shortened
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PretrainedConfig,
    PreTrainedModel,
    ViTImageProcessor,
)
from transformers.modeling_outputs import ImageClassifierOutput

IMAGE_SIZE = 32
LARGEST_SIZE = 512
# Side of the map that the linear layers read: IMAGE_SIZE, halved three times.
POOLED = 4
# Channel statistics of the CIFAR-10 training images, as in published training recipes.
CIFAR10_MEAN = [0.4914, 0.4822, 0.4465]
CIFAR10_STD = [0.2470, 0.2435, 0.2616]


class SimpleCNNConfig(PretrainedConfig):
    model_type = "hfprobe-simple-cnn"

    def __init__(
        self,
        image_size: int = IMAGE_SIZE,
        channels: tuple[int, ...] = (64, 128, 256),
        hidden_size: int = 512,
        dropout: float = 0.5,
        **kwargs: Any,
    ):
        def check(name: str, value: Any, *, fits: bool, allowed: str) -> None:
            if not fits:
                raise ValueError(f"{name} is {shortened(value)}; allowed: {allowed}")

        def positive(value: Any) -> bool:
            return type(value) is int and value > 0

        fits = positive(image_size) and image_size <= LARGEST_SIZE
        check("image_size", image_size, fits=fits, allowed=f"a whole number from 1 to {LARGEST_SIZE}")
        fits = isinstance(channels, list | tuple) and len(channels) > 0 and all(map(positive, channels))
        fits = fits and 2 ** len(channels) <= image_size
        check("channels", channels, fits=fits, allowed="positive whole numbers, each halving the image once")
        check("hidden_size", hidden_size, fits=positive(hidden_size), allowed="a positive whole number")
        fits = type(dropout) in (int, float) and 0 <= dropout < 1
        check("dropout", dropout, fits=fits, allowed="0 <= dropout < 1")
        self.image_size = image_size
        self.channels = list(channels)
        self.hidden_size = hidden_size
        self.dropout = dropout
        super().__init__(**kwargs)


class SimpleCNN(PreTrainedModel):
    """Three convolution blocks and a two-layer classifier.

    Input: `pixel_values` (B, 3, S, S) float with S = `config.image_size`, normalised by the image processor saved with
    the model.
    """

    config_class = SimpleCNNConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config: SimpleCNNConfig):
        super().__init__(config)
        blocks = []
        in_channels = 3
        for out_channels in config.channels:
            blocks += [
                nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
                nn.BatchNorm2d(out_channels),
                # max and ReLU commute, also in their gradients; pooling first leaves a quarter of the values to ReLU.
                nn.MaxPool2d(2),
                nn.ReLU(inplace=True),
            ]
            in_channels = out_channels
        side = config.image_size // 2 ** len(config.channels)
        if side > POOLED:
            # Adaptive average pooling with windows of one size, which may overlap. The gradient of
            # nn.AdaptiveAvgPool2d is not deterministic on a GPU, so --full_determinism would end in an error.
            stride = side // POOLED
            blocks.append(nn.AvgPool2d(side - (POOLED - 1) * stride, stride=stride))
            side = POOLED
        self.features = nn.Sequential(*blocks)  # (B, 3, S, S) -> (B, 256, 4, 4)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(in_channels * side * side, config.hidden_size),
            nn.ReLU(inplace=True),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden_size, config.num_labels),
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        # The default of transformers would initialise every Linear and Conv from N(0, 0.02). Under from_pretrained, its
        # patched torch.nn.init does not change weights that were loaded from a checkpoint, so these calls are safe.
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

    @torch.no_grad()
    def set_principal_filters(self, pixel_values: torch.Tensor) -> None:
        """Set the first filters to the principal components of image patches, each with both signs.

        BatchNorm scales their outputs to unit variance, so that the network starts with whitened patches. airbench
        (Jordan, 2024) does the same with a frozen first layer; here the layer is trained like any other. Filters beyond
        twice the number of components are not changed, and the mean length of the filters is kept.

        Args:
            pixel_values: (B, 3, H, W), some hundred normalised images.
        """
        filters = self.features[0].weight  # (out, 3, 3, 3)
        covariance = torch.zeros(filters[0].numel(), filters[0].numel(), dtype=torch.float64)
        at_once = max(1, 100 * IMAGE_SIZE**2 // pixel_values[0, 0].numel())
        for part in pixel_values.split(at_once):  # fits into the CPU cache: ten times as fast as all at once
            patches = nn.functional.unfold(part.contiguous(), filters.shape[-1]).transpose(0, 1).flatten(1)
            covariance += patches @ patches.T  # (27, 27)
        components = torch.linalg.eigh(covariance).eigenvectors.T.flip(0)  # (27, 27), the strongest first
        both = torch.cat([components, -components])[: len(filters)]
        length = filters.flatten(1).norm(dim=1).mean()
        filters[: len(both)] = (length * both).to(filters).view(-1, *filters.shape[1:])

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> ImageClassifierOutput:
        """Logits (B, num_labels) and, if labels (B,) are passed, the mean cross-entropy."""
        logits = self.classifier(self.features(pixel_values))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


AutoConfig.register(SimpleCNNConfig.model_type, SimpleCNNConfig)
AutoModelForImageClassification.register(SimpleCNNConfig, SimpleCNN)
AutoImageProcessor.register(
    SimpleCNNConfig, slow_image_processor_class=None, fast_image_processor_class=ViTImageProcessor
)
SimpleCNNConfig.register_for_auto_class()
SimpleCNN.register_for_auto_class("AutoModelForImageClassification")


def build_processor(side: int) -> ViTImageProcessor:
    """An image processor for images of side x side pixels that normalises by the statistics of CIFAR-10.

    At 32 x 32 it scales both sides, as in the reference experiment. At other sizes it scales the shorter side and crops
    the centre, so that photographs are not distorted.
    """
    square = {"height": side, "width": side}
    geometry = (
        {"size": square}
        if side == IMAGE_SIZE
        else {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": square}
    )
    return ViTImageProcessor(**geometry, image_mean=CIFAR10_MEAN, image_std=CIFAR10_STD)
