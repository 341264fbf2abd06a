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

# 18 is the oldest version that the exporter of torch writes, so that most runtimes read the files.
OPSET = 18
IR_VERSION = 10
# The constants of Pillow: what `resample` of an image processor may be.
RESAMPLING = {2: "bilinear", 3: "bicubic"}
# Half the width of each filter in pixels of an image that is not reduced.
REACH = {"bilinear": 1, "bicubic": 2}
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
    text += _graph(Geometry.of(processor)) + _resize(Geometry.of(processor).filter)
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


# (out, taps) float64 `weight` from the distance `d` >= 0 to the middle of the filter.
FILTERS = {
    "bilinear": """
        slope = Sub (one_real, d)
        weight = Max (slope, zero_real)
    """,
    # Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5.
    "bicubic": """
        near_1 = Mul (near_cubic, d)
        near_2 = Sub (near_1, near_square)
        near_3 = Mul (near_2, d)
        near_4 = Mul (near_3, d)
        near = Add (near_4, one_real)
        far_1 = Sub (d, five)
        far_2 = Mul (far_1, d)
        far_3 = Add (far_2, eight)
        far_4 = Mul (far_3, d)
        far_5 = Sub (far_4, four)
        far = Mul (far_5, minus_half)
        is_near = Less (d, one_real)
        is_far = Less (d, two_real)
        outer = Where (is_far, far, zero_real)
        weight = Where (is_near, near, outer)
    """,
}


def _resize(filter: str) -> str:
    """A function that resizes the first axis of an image, antialiased: x (N, M, 3) uint8, out -> y (out, M, 3) uint8.

    The arithmetic is that of torch and torchvision for uint8 images, which is Pillow's with 16-bit weights
    (`_compute_index_ranges_int16_weights` in UpSampleKernel.cpp): the weights of each output row are fixed-point
    numbers, the sum of the weighted rows is an integer, and each axis is rounded to uint8 by itself.
    """
    powers = ", ".join(str(2.0 ** (precision + 1)) for precision in range(22))
    return f"""
    <domain: "hfprobe", opset_import: ["" : {OPSET}]>
    resize (x, out) => (y)
    {{
        zero = Constant <value = int64 {{0}}> ()
        one = Constant <value = int64 {{1}}> ()
        first_axis = Constant <value = int64[1] {{0}}> ()
        last_axis = Constant <value = int64[1] {{1}}> ()
        zero_real = Constant <value = double {{0.0}}> ()
        half = Constant <value = double {{0.5}}> ()
        one_real = Constant <value = double {{1.0}}> ()
        two_real = Constant <value = double {{2.0}}> ()
        near_cubic = Constant <value = double {{1.5}}> ()
        near_square = Constant <value = double {{2.5}}> ()
        four = Constant <value = double {{4.0}}> ()
        five = Constant <value = double {{5.0}}> ()
        eight = Constant <value = double {{8.0}}> ()
        minus_half = Constant <value = double {{-0.5}}> ()

        shape = Shape <start = 0, end = 1> (x)
        size = Squeeze (shape)
        size_real = Cast <to = 11> (size)
        out_real = Cast <to = 11> (out)
        scale = Div (size_real, out_real)
        widening = Max (scale, one_real)
        narrowing = Div (one_real, widening)
        reach = Constant <value = double {{{float(REACH[filter])}}}> ()
        support = Mul (reach, widening)

        numbers = Range (zero, out, one)
        numbers_real = Cast <to = 11> (numbers)
        middles = Add (numbers_real, half)
        centers_flat = Mul (scale, middles)
        centers = Unsqueeze (centers_flat, last_axis)
        below = Sub (centers, support)
        below_rounded = Add (below, half)
        below_whole = Cast <to = 7> (below_rounded)
        low = Max (below_whole, zero)
        above = Add (centers, support)
        above_rounded = Add (above, half)
        above_whole = Cast <to = 7> (above_rounded)
        high = Min (above_whole, size)

        most_half = Ceil (support)
        most_double = Mul (most_half, two_real)
        most_real = Add (most_double, one_real)
        most = Cast <to = 7> (most_real)
        taps = Range (zero, most, one)
        index = Add (low, taps)
        inside = Less (index, high)
        index_real = Cast <to = 11> (index)
        apart = Sub (index_real, centers)
        apart_middle = Add (apart, half)
        apart_scaled = Mul (apart_middle, narrowing)
        d = Abs (apart_scaled)
        {FILTERS[filter]}
        weight_inside = Where (inside, weight, zero_real)
        total = ReduceSum <keepdims = 1> (weight_inside, last_axis)
        shares = Div (weight_inside, total)

        largest = ReduceMax <keepdims = 0> (shares)
        powers = Constant <value = double[22] {{{powers}}}> ()
        next_weight = Mul (largest, powers)
        next_half = Add (next_weight, half)
        next_whole = Floor (next_half)
        limit = Constant <value = double {{32768.0}}> ()
        fits = Less (next_whole, limit)
        fits_real = Cast <to = 11> (fits)
        precision = ReduceSum <keepdims = 0> (fits_real)
        unit = Pow (two_real, precision)
        weights_real = Mul (shares, unit)
        signs = Sign (weights_real)
        sizes = Abs (weights_real)
        sizes_half = Add (sizes, half)
        sizes_whole = Floor (sizes_half)
        weights_whole = Mul (sizes_whole, signs)
        weights_wide = Cast <to = 6> (weights_whole)
        weights = Transpose <perm = [1, 0]> (weights_wide)
        last = Sub (size, one)
        index_kept = Min (index, last)
        rows = Transpose <perm = [1, 0]> (index_kept)

        half_unit = Mul (unit, half)
        start = Cast <to = 6> (half_unit)
        others = Shape <start = 1> (x)
        out_shape = Unsqueeze (out, first_axis)
        y_shape = Concat <axis = 0> (out_shape, others)
        start_rows = Expand (start, y_shape)
        yes = Constant <value = bool {{1}}> ()
        sum = Loop (most, yes, start_rows) <body = add_tap (int64 tap, bool go, int32[o, m, c] before)
            => (bool on, int32[o, m, c] after) {{
            on = Identity (go)
            row = Gather <axis = 0> (rows, tap)
            tap_weight = Gather <axis = 0> (weights, tap)
            inner = Constant <value = int64[2] {{1, 2}}> ()
            factor = Unsqueeze (tap_weight, inner)
            pixels_small = Gather <axis = 0> (x, row)
            pixels = Cast <to = 6> (pixels_small)
            part = Mul (pixels, factor)
            after = Add (before, part)
        }}>
        least = Constant <value = int32 {{0}}> ()
        most_value = Constant <value = int32 {{255}}> ()
        positive = Max (sum, least)
        divisor = Cast <to = 6> (unit)
        quotient = Div (positive, divisor)
        value = Min (quotient, most_value)
        y = Cast <to = 2> (value)
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
                "Export on an x86-64 processor with AVX2, for whose resizing they are written."
            )
