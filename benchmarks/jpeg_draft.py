"""What decoding JPEG files at a half, a quarter or an eighth of their size saves, and what it does to the answers.

    python benchmarks/jpeg_draft.py photos/ --model hub/models--hfprobe--linear-probe/snapshots/<revision>

The decoder can leave out high frequencies (`PIL.Image.draft`), which saves time. The picture that is left is at least
2, 3 or 4 times as large as the model's input, which is then made from it as usual. Crops of random size and place are
cut from the photographs and written as JPEG files of quality 90, so that few photographs give many pictures.
"""

from __future__ import annotations

import argparse
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from side_by_side import describe_machine
from transformers import BaseImageProcessor

from hfprobe.data.pixels.image_paths import find_images
from hfprobe.data.pixels.transforms import fit_images, input_size, normalize
from hfprobe.models.loading import load_model

LEAST, CROPS = 1000, 8  # pixels of the smaller side; of each photograph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", help="folder")
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, processor = load_model(arguments.model)
    files = cut_crops(find_images([arguments.photographs]))
    sides = [min(PIL.Image.open(BytesIO(file)).size) for file in files]
    print(f"{len(files)} pictures; the smaller side has {min(sides):,} to {max(sides):,} pixels; {describe_machine()}")
    whole: tuple[float, torch.Tensor] | None = None
    for times in (None, 4, 3, 2):
        start = time.process_time()
        images = [fit(file, processor=processor, times=times) for file in files]
        seconds = time.process_time() - start
        with torch.inference_mode():
            parts = torch.cat(images).split(32)
            shares = torch.cat(
                [model.eval()(pixel_values=normalize(part, processor=processor)).logits for part in parts]
            )
        shares = shares.softmax(1)
        whole = whole or (seconds, shares)
        differing = int((shares.argmax(1) != whole[1].argmax(1)).sum())
        print(
            f"{'whole picture' if times is None else f'at least {times} x the input'}: speed {whole[0] / seconds:.2f}, "
            f"{differing} answers differ, largest difference of a probability {(shares - whole[1]).abs().max():.2f}"
        )


def cut_crops(paths: list[str]) -> list[bytes]:
    """CROPS pictures of each photograph that is large enough, as JPEG files."""
    generator, files = np.random.default_rng(0), []
    for path in paths:
        image = PIL.Image.open(path).convert("RGB")
        for _ in range(CROPS if min(image.size) > 1.7 * LEAST else 0):
            height = int(generator.integers(LEAST, min(image.size)))
            width = min(int(height * generator.uniform(1, 4 / 3)), image.width)
            left, top = (int(generator.integers(0, most + 1)) for most in (image.width - width, image.height - height))
            crop = image.crop((left, top, left + width, top + height))
            crop.save(buffer := BytesIO(), format="JPEG", quality=90)
            files.append(buffer.getvalue())
    return files


def fit(file: bytes, *, processor: BaseImageProcessor, times: int | None) -> torch.Tensor:
    """(1, 3, h, w) uint8 of a file, of which at least `times` the model's input is decoded; None: all of it."""
    image = PIL.Image.open(BytesIO(file))
    if times is not None:
        share = min(1, times * input_size(processor) / min(image.size))
        image.draft("RGB", (int(np.ceil(share * image.width)), int(np.ceil(share * image.height))))
    return fit_images(torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None], processor=processor)


if __name__ == "__main__":
    main()
