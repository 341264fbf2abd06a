import numpy as np
import PIL.Image
import pytest
from PIL import features

from helpers.image_folders import NAMES, load
from hfprobe.data.sources.file_kinds import register_heic


@pytest.mark.parametrize("ending", ["heic", "avif", "bmp", "gif", "jpg", "jp2", "ppm", "tga", "tif", "webp"])
def test_files_of_each_kind_are_read(tmp_path, ending):
    if ending == "heic":
        pytest.importorskip("pillow_heif")
        register_heic()
    if ending == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    for label, name in enumerate(NAMES):
        (tmp_path / name).mkdir()
        for number in range(10):
            PIL.Image.new("RGB", (32, 32), (200 * label, 0, 0)).save(tmp_path / name / f"{number}.{ending.upper()}")
    splits = load(tmp_path)
    assert np.abs(splits.train.images[:, 0, 0, 0] - 200.0 * splits.train.labels).max() <= 4
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 20
