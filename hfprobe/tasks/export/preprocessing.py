"""The preprocessing of a model as nodes of an ONNX graph: an image of any size -> what the network reads.

It is the geometric and the arithmetic part of the image processor, `fit_images` and `normalize` of
`hfprobe.data.pixels.transforms`, and equals them to the bit. The operator Resize is not used: its antialiasing rounds
differently, and several runtimes do not have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch

from hfprobe.data.pixels.transforms import LONGEST, fit_images, normalize
from hfprobe.system.errors import CheckFailedError, InputError
from hfprobe.tasks.export.resizing import IR_VERSION, OPSET, describe_resizing

# The constants of Pillow: what `resample` of an image processor may be.
RESAMPLING = {2: "bilinear", 3: "bicubic"}
WRITTEN_FOR = "2.14"  # version of torch; 2.6 rounds in another way
# Heights and widths in pixels on which the nodes are compared with the image processor.
SIZES = ((32, 32), (64, 48), (37, 101), (224, 224), (300, 200), (255, 257), (480, 641), (7, 5), (1, 40), (90, 6))


@dataclass(frozen=True)
class Geometry:
    """The geometric part of an image processor.

    Attributes:
        filter: bilinear or bicubic.
        short: length in pixels of the shorter side after resizing; None: `size` says both sides.
        size: height and width after resizing, without `short`.
        crop: height and width of the centre crop; None: there is none.
        to_even: whether half a pixel of the crop's position is rounded to the nearest even number, and not down.
    """

    filter: str
    short: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    to_even: bool

    @classmethod
    def of(cls, processor: Any) -> Geometry:
        """The geometry of an image processor of transformers.

        Raises:
            InputError: it has a step that no nodes are written for.
        """
        size = {name: value for name, value in dict(processor.size).items() if value is not None}
        crop = (processor.crop_size["height"], processor.crop_size["width"]) if processor.do_center_crop else None
        short = size.get("shortest_edge") if size.keys() == {"shortest_edge"} else None
        both = (size["height"], size["width"]) if size.keys() == {"height", "width"} else None
        resample = int(processor.resample) if processor.resample is not None else 2
        square = both is not None or (short is not None and crop is not None)
        if not processor.do_resize or resample not in RESAMPLING or not square:
            raise InputError(
                f"The image processor cannot be exported: do_resize is {processor.do_resize}, resample {resample}, "
                f"size {size}, crop {crop}; allowed: True, 2 (bilinear) or 3 (bicubic), and height and width, or "
                "shortest_edge with a crop. Train with another backbone."
            )
        if crop is not None and any(
            side > kept for side, kept in zip(crop, both or (short or 0, short or 0), strict=True)
        ):
            raise InputError(
                f"The image processor cannot be exported: its crop of {crop[0]} x {crop[1]} pixels is larger than the "
                f"resized image, {size}. Train with another backbone."
            )
        return cls(RESAMPLING[resample], short, both, crop, crop is not None and _rounds_to_even(processor, crop))


def _rounds_to_even(processor: Any, crop: tuple[int, int]) -> bool:
    """Whether of three spare rows, two are cut off above the crop: torchvision rounds 1.5 to 2, transformers to 1."""
    rows = torch.arange(crop[0] + 3, dtype=torch.int32)[None, None, :, None].expand(1, 3, -1, crop[1])
    return bool(processor.center_crop(rows, processor.crop_size)[0, 0, 0, 0] == 2)


def build_preprocessing(processor: Any) -> onnx.ModelProto:
    """A graph from `image`, (H, W, 3) uint8 RGB of any size, to `pixel_values`, (1, 3, h, w) float32.

    Raises:
        InputError: see `Geometry.of`.
    """
    text = f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}, "hfprobe" : 1]>\n'
    text += _graph(Geometry.of(processor)) + describe_resizing(Geometry.of(processor).filter)
    model = onnx.parser.parse_model(text)
    # The arithmetic part depends on one value at a time: its result for each value of each channel is a table.
    values = torch.arange(256, dtype=torch.uint8).expand(3, 256).reshape(1, 3, 1, 256)
    table = normalize(values, processor=processor).float().numpy().reshape(-1)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(table), "normalized"))
    return model


def _graph(geometry: Geometry) -> str:
    """The main graph in the text form of ONNX."""
    height, width = geometry.crop or geometry.size or (0, 0)
    cut = f"""
        swapped = Constant <value = int64[2] {{1, 0}}> ()
        limit = Constant <value = int64 {{{LONGEST}}}> ()
        two = Constant <value = int64 {{2}}> ()
        axes = Constant <value = int64[2] {{0, 1}}> ()
        other = Gather (sides, swapped)
        longest = Mul (other, limit)
        lengths = Min (sides, longest)
        beyond = Sub (sides, lengths)
        first = Div (beyond, two)
        end = Add (first, lengths)
        part = Slice (image, first, end, axes)
    """
    by_short = f"""
        short = Constant <value = int64 {{{geometry.short}}}> ()
        shortest = ReduceMin <keepdims = 0> (lengths)
        shortest_real = Cast <to = 11> (shortest)
        scaled = Mul (lengths, short)
        scaled_real = Cast <to = 11> (scaled)
        sizes_real = Div (scaled_real, shortest_real)
        sizes = Cast <to = 7> (sizes_real)
    """
    by_both = f"sizes = Constant <value = int64[2] {{{', '.join(map(str, geometry.size or ()))}}}> ()"
    crop = f"""
        crop = Constant <value = int64[2] {{{height}, {width}}}> ()
        spare = Sub (sizes, crop)
        spare_real = Cast <to = 11> (spare)
        half = Constant <value = double {{0.5}}> ()
        middle = Mul (spare_real, half)
        rounded = {"Round" if geometry.to_even else "Floor"} (middle)
        corner = Cast <to = 7> (rounded)
        opposite = Add (corner, crop)
        fitted = Slice (resized, corner, opposite, axes)
    """
    cropped = geometry.crop is not None
    return f"""
    preprocessing (uint8[height, width, 3] image) => (float[1, 3, {height}, {width}] pixel_values)
    {{
        sides = Shape <start = 0, end = 2> (image)
        {cut if cropped else "part = Identity (image) lengths = Identity (sides)"}
        {by_both if geometry.short is None else by_short}
        top = Constant <value = int64 {{0}}> ()
        one = Constant <value = int64 {{1}}> ()
        new_height = Gather (sizes, top)
        new_width = Gather (sizes, one)
        across = Transpose <perm = [1, 0, 2]> (part)
        narrow = hfprobe.resize (across, new_width)
        upright = Transpose <perm = [1, 0, 2]> (narrow)
        resized = hfprobe.resize (upright, new_height)
        {crop if cropped else "fitted = Identity (resized)"}
        values = Cast <to = 6> (fitted)
        channels = Constant <value = int32[3] {{0, 256, 512}}> ()
        places = Add (values, channels)
        pixels = Gather (normalized, places)
        planes = Transpose <perm = [2, 0, 1]> (pixels)
        batch = Constant <value = int64[1] {{0}}> ()
        pixel_values = Unsqueeze (planes, batch)
    }}
    """


def check_preprocessing(model: onnx.ModelProto, processor: Any) -> None:
    """Compare the nodes with the image processor on noise of SIZES: they must agree to the bit.

    Raises:
        CheckFailedError: they differ, for example because the image processor has another step.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    for height, width in SIZES:
        image = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        wanted = normalize(fit_images(pixels, processor=processor), processor=processor).numpy()
        (found,) = session.run(["pixel_values"], {"image": image})
        if not np.array_equal(wanted, found):
            raise CheckFailedError(
                f"The nodes of the preprocessing differ from {type(processor).__name__} by up to "
                f"{np.abs(wanted - found).max():.3g} for an image of {height} x {width} pixels. Nothing was written. "
                f"Export on an x86-64 processor with AVX2 and with torch {WRITTEN_FOR} or later (here: "
                f"{torch.__version__}), for whose resizing they are written."
            )
