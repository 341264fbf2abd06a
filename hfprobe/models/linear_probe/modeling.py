"""A linear probe: one linear layer on the pooled features of a frozen, pretrained timm backbone (default: ViT-Tiny).

With ViT-Tiny and five labels, it has 5,525,381 parameters, of which 965 are trained. The backbone never changes: it
has no gradients, is always in evaluation mode, and is bit-identical after training.
"""

from __future__ import annotations

import hashlib
from reprlib import repr as shortened
from typing import Any

import torch
from torch import nn
from torchvision.transforms.v2 import functional as tvF
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    CLIPImageProcessor,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import ImageClassifierOutput

RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # the constants of Pillow
HEX_DIGITS = set("0123456789abcdef")
SECOND_POOLINGS = (None, "token", "mean", "max")


class LinearProbeConfig(PretrainedConfig):
    """The config of a linear probe.

    Args:
        feature_size: length F of the features of an image, of all poolings together.
        second_pooling: `token` (the class token), `mean` or `max` (over the patches or positions) of the last layer of
            the backbone, which the features hold after those that timm pools by default; None: they hold these alone.
        pooling: the features that the head uses: `default`, the value of `second_pooling`, or `both`.
        normalize: whether the features that the head uses are divided by their L2 norm.
    """

    model_type = "hfprobe-linear-probe"

    def __init__(
        self,
        backbone: str = "vit_tiny_patch16_224",
        feature_size: int = 192,
        backbone_weights: str = "random features, not pretrained",
        backbone_sha256: str | None = None,
        second_pooling: str | None = None,
        pooling: str = "default",
        normalize: bool = False,
        **kwargs: Any,
    ):
        for name, value in (("backbone", backbone), ("backbone_weights", backbone_weights)):
            if not isinstance(value, str):
                raise ValueError(f"{name} is {shortened(value)}; allowed: text")
        if type(feature_size) is not int or feature_size < 1:
            raise ValueError(f"feature_size is {shortened(feature_size)}; allowed: a positive whole number")
        digits = isinstance(backbone_sha256, str) and len(backbone_sha256) == 64 and set(backbone_sha256) <= HEX_DIGITS
        if backbone_sha256 is not None and not digits:
            raise ValueError(f"backbone_sha256 is {shortened(backbone_sha256)}; allowed: 64 hexadecimal digits")
        if second_pooling not in SECOND_POOLINGS:
            raise ValueError(f"second_pooling is {shortened(second_pooling)}; allowed: None, token, mean, max")
        poolings = ["default"] if second_pooling is None else ["default", second_pooling, "both"]
        if pooling not in poolings:
            raise ValueError(f"pooling is {shortened(pooling)}; allowed: {', '.join(poolings)}")
        if not isinstance(normalize, bool):
            raise ValueError(f"normalize is {shortened(normalize)}; allowed: True, False")
        self.backbone = backbone
        self.feature_size = feature_size
        self.backbone_weights = backbone_weights
        self.backbone_sha256 = backbone_sha256
        self.second_pooling = second_pooling
        self.pooling = pooling
        self.normalize = normalize
        super().__init__(**kwargs)


class LinearProbeImageProcessor(CLIPImageProcessor):
    """The evaluation transform of timm: the image processor of CLIP with the centre crop of torchvision.

    If an odd number of pixels is cut away, torchvision rounds half of it to the nearest even number, and transformers
    rounds it down. With the crop of transformers, every second image of such a size would be shifted by one pixel.
    """

    def center_crop(self, image: torch.Tensor, size: Any, **kwargs: Any) -> torch.Tensor:
        """(B, 3, H, W) -> (B, 3, size.height, size.width)."""
        return tvF.center_crop(image, [size.height, size.width])


class LinearProbe(PreTrainedModel):
    """A frozen backbone and a linear head.

    Input: `pixel_values` (B, 3, H, W) float from the saved image processor, or `features` (B, feature_size).
    """

    config_class = LinearProbeConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False

    def __init__(self, config: LinearProbeConfig):
        super().__init__(config)
        import timm

        # Checked because timm would download other names, such as hf-hub:name/model.
        if not timm.is_model(config.backbone):
            raise ValueError(f"backbone is {shortened(config.backbone)}; allowed: a name in timm.list_models()")
        # Under from_pretrained this runs on the meta device; weights are loaded afterwards.
        self.backbone = timm.create_model(config.backbone, pretrained=False, num_classes=0)
        # timm computes buffers such as position tables and does not save them: from_pretrained would leave them empty.
        for module in self.backbone.modules():
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=True)
        self.head = nn.Linear(len(range(config.feature_size)[self.used()]), config.num_labels)
        self.post_init()
        self.train(self.training)

    def _init_weights(self, module: nn.Module) -> None:
        # Only the head: the default of transformers would overwrite the backbone with values from N(0, 0.02).
        if module is self.head:
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)

    def train(self, mode: bool = True) -> LinearProbe:
        # Trainer calls model.train() at every step; dropout and BatchNorm of the backbone must stay in evaluation mode.
        super().train(mode)
        self.backbone.eval()
        # from_pretrained creates new parameters with gradients, and then calls eval().
        self.backbone.requires_grad_(False)
        return self

    def extract_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Features (B, feature_size) of images (B, 3, H, W) in one pass of the backbone, without gradients."""
        with torch.no_grad():
            if self.config.second_pooling is None:
                return self.backbone(pixel_values)
            last = self.backbone.forward_features(pixel_values)
            return torch.cat([self.backbone.forward_head(last), self._pool(last)], dim=1)

    def _pool(self, last: torch.Tensor) -> torch.Tensor:
        """The second pooling (B, F) of the last layer: tokens (B, T, F), or maps (B, F, H, W) or (B, H, W, F)."""
        how = self.config.second_pooling
        if how == "token":
            return last[:, 0]
        if last.ndim == 3:
            places = last[:, getattr(self.backbone, "num_prefix_tokens", 0) :]  # without class and register tokens
        else:
            places = last.flatten(2).mT if last.shape[1] == self.backbone.num_features else last.flatten(1, 2)
        return places.mean(1) if how == "mean" else places.amax(1)

    def used(self) -> slice:
        """Where in the features those are that the head uses."""
        if self.config.pooling == "both" or self.config.second_pooling is None:
            return slice(None)
        own = self.config.feature_size - self.backbone.num_features
        return slice(own) if self.config.pooling == "default" else slice(own, None)

    def use(self, features: torch.Tensor) -> torch.Tensor:
        """What the head multiplies: of features (B, feature_size) those of its pooling, normalised if it was chosen."""
        features = features[:, self.used()]
        return nn.functional.normalize(features, dim=-1) if self.config.normalize else features

    def choose_features(self, *, pooling: str, normalize: bool) -> None:
        """Give the model a new head, for other features of the same backbone; see `LinearProbeConfig`."""
        self.config.pooling, self.config.normalize = pooling, normalize
        size = len(range(self.config.feature_size)[self.used()])
        self.head = nn.Linear(size, self.config.num_labels).to(self.head.weight)

    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
    ) -> ImageClassifierOutput:
        """Logits (B, num_labels) and, if labels (B,) are passed, the mean cross-entropy."""
        if features is None:
            if pixel_values is None:
                raise ValueError("LinearProbe needs pixel_values or features.")
            features = self.extract_features(pixel_values)
        logits = self.head(self.use(features))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)

    def frozen_sha256(self) -> str:
        """SHA-256 of the parameters and buffers of the backbone: names, dtypes, shapes and bytes, sorted by name."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.backbone.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy())
        return digest.hexdigest()


AutoConfig.register(LinearProbeConfig.model_type, LinearProbeConfig)
AutoModelForImageClassification.register(LinearProbeConfig, LinearProbe)
AutoImageProcessor.register(
    LinearProbeConfig, slow_image_processor_class=None, fast_image_processor_class=LinearProbeImageProcessor
)
LinearProbeConfig.register_for_auto_class()
LinearProbeImageProcessor.register_for_auto_class("AutoImageProcessor")
LinearProbe.register_for_auto_class("AutoModelForImageClassification")


def build_processor(pretrained_cfg: dict[str, Any]) -> LinearProbeImageProcessor:
    """The evaluation transform of timm as an image processor: scale the shorter side, crop the centre, normalise.

    Args:
        pretrained_cfg: `pretrained_cfg` of a timm model.
    """
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=pretrained_cfg)
    side = data["input_size"][-1]
    scaled = int(side / data["crop_pct"])
    squash = data["crop_mode"] == "squash"  # both sides are scaled, whatever the aspect ratio of the image
    return LinearProbeImageProcessor(
        size={"height": scaled, "width": scaled} if squash else {"shortest_edge": scaled},
        crop_size={"height": side, "width": side},
        resample=RESAMPLING[data["interpolation"]],
        image_mean=list(data["mean"]),
        image_std=list(data["std"]),
    )
