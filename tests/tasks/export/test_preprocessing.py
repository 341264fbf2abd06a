import re

import numpy as np
import pytest
import torch

from helpers.models import build_probe
from helpers.with_onnx import onnx
from hfprobe.data.pixels.transforms import fit_images, normalize
from hfprobe.models.onnx_files import open_session
from hfprobe.models.simple_cnn.modeling import build_processor
from hfprobe.system.errors import CheckFailedError, InputError
from hfprobe.tasks.export.preprocessing import Geometry, build_preprocessing, check_preprocessing


def probe_processor(**settings):
    _, processor = build_probe()
    for name, value in settings.items():
        setattr(processor, name, value)
    return processor


PROCESSORS = {
    "SimpleCNN at 32": lambda: build_processor(32),
    "SimpleCNN at 64": lambda: build_processor(64),
    "probe, bicubic": lambda: probe_processor(resample=3),
    "probe, bilinear": lambda: probe_processor(resample=2),
    "probe, both sides": lambda: probe_processor(size=type(build_processor(32).size)(height=291, width=291)),
}
# Larger and smaller than the input, not square, extremely long, of one row, of the size of the input.
SIZES = [(32, 32), (64, 64), (288, 288), (300, 400), (600, 200), (31, 17), (40, 500), (500, 40), (1, 9), (3, 3)]


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_nodes_equal_the_image_processor_to_the_bit(name):
    processor = PROCESSORS[name]()
    nodes = build_preprocessing(processor)
    onnx.checker.check_model(nodes, full_check=True)
    session = open_session(nodes.SerializeToString())
    generator = np.random.default_rng(1)
    for size in SIZES:
        noise = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
        for image in (noise, (noise > 127).astype(np.uint8) * 255):  # a filter overshoots beside black and white
            pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
            wanted = normalize(fit_images(pixels, processor=processor), processor=processor).numpy()
            (found,) = session.run(None, {"image": image})
            assert np.array_equal(found, wanted), size


def test_the_rounding_of_the_crop_is_that_of_the_processor():
    assert Geometry.of(probe_processor()).to_even
    assert not Geometry.of(build_processor(64)).to_even


def test_an_image_processor_with_another_step_is_noticed():
    processor = build_processor(32)
    nodes = build_preprocessing(processor)
    processor.image_mean = [0.5, 0.5, 0.5]
    with pytest.raises(CheckFailedError, match=re.escape("The nodes of the preprocessing differ from ViTImage")):
        check_preprocessing(nodes, processor)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resample": 1}, "resample 1, size"),
        ({"do_resize": False}, "do_resize is False"),
        ({"do_center_crop": False}, "crop None; allowed: "),
        ({"crop_size": {"height": 500, "width": 500}}, "its crop of 500 x 500 pixels is larger than the resized image"),
    ],
)
def test_what_no_nodes_are_written_for_is_refused(settings, message):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        build_preprocessing(probe_processor(**settings))
    assert str(refused.value).startswith("The image processor cannot be exported: ")
    assert str(refused.value).endswith("Train with another backbone.")
