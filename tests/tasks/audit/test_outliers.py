import numpy as np

from hfprobe.data.pixels.image_files import ImageHeader
from hfprobe.tasks.audit.outliers import find_outliers


def test_unusual_images_are_found_by_what_is_unusual():
    generator = np.random.default_rng(0)
    grey = (generator.uniform(100, 150, (200, 1, 1)) + generator.normal(0, 10, (200, 32, 32))).astype(np.float32)
    headers = [ImageHeader("PNG", "RGB", 100, 80)] * 200
    grey[3] = 2 + grey[3] * 0.01
    grey[4] = 253
    grey[5] = np.linspace(100, 150, 32)
    headers[6] = ImageHeader("PNG", "RGB", 10, 8)
    headers[7] = ImageHeader("PNG", "RGB", 1000, 900)
    headers[8] = ImageHeader("PNG", "RGB", 400, 20)
    found = {measure: [at for at, _ in items] for measure, items in find_outliers(grey, headers).items()}
    assert set(found.pop("blurred")) == {3, 4, 5}
    assert found == {"dark": [3], "bright": [4], "small": [6], "large": [7], "elongated": [8]}


def test_equal_images_have_no_outliers():
    grey = np.full((10, 32, 32), 128, dtype=np.float32)
    found = find_outliers(grey, [ImageHeader("PNG", "RGB", 32, 32)] * 10)
    assert not any(found.values())
