"""The antialiased resizing of uint8 images as a function of ONNX, in its text form."""

from __future__ import annotations

# 18 is the oldest version that the exporter of torch writes, so that most runtimes read the files.
OPSET = 18
IR_VERSION = 10
# Half the width of each filter in pixels of an image that is not reduced.
REACH = {"bilinear": 1, "bicubic": 2}

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


def describe_resizing(filter: str) -> str:
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
