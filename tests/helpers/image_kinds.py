"""Image files of every kind, size and orientation, and the layouts of datasets that they can be in."""

import io

import datasets
import numpy as np
import PIL.Image
import PIL.ImageOps
import PIL.TiffImagePlugin

from hfprobe.data.arguments import DataArguments
from hfprobe.data.splits.images import load_images

CLASSES = ["cat", "dog"]
SIZES = {"smaller": (20, 20), "larger": (96, 96), "wide": (200, 60), "tall": (61, 150), "odd": (67, 90)}
TURNED = 6  # EXIF: the image is to be rotated by 90 degrees clockwise


def ramp(width, height, *, top=255):
    """Grey values that rise from left to right and, more slowly, downwards: no two sides are alike."""
    across, down = np.meshgrid(np.linspace(0, 0.8, width), np.linspace(0, 0.2, height))
    return (across + down) * top


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def tiff(values, **tags):
    info = PIL.TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info.tagtype[int(tag[1:])] = PIL.TiffTags.DOUBLE
        info[int(tag[1:])] = value
    return encode(PIL.Image.fromarray(values), "TIFF", tiffinfo=info)


def turned(image, kind):
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = TURNED
    return encode(image.transpose(PIL.Image.Transpose.ROTATE_90), kind, exif=exif)


def grey(width, height):
    return PIL.Image.fromarray(ramp(width, height).round().astype(np.uint8))


def half_transparent(width, height):
    image = grey(width, height).convert("RGBA")
    alpha = np.full((height, width), 255, dtype=np.uint8)
    alpha[:, width // 2 :] = 0
    image.putalpha(PIL.Image.fromarray(alpha))
    return image


def on_white(width, height):
    expected = ramp(width, height)
    expected[:, width // 2 :] = 255
    return expected


# kind -> a file of `ramp`, and the grey values that it becomes (None: those of the ramp).
KINDS = {
    "RGB PNG": lambda *size: (encode(grey(*size).convert("RGB"), "PNG"), None),
    "RGB JPEG": lambda *size: (encode(grey(*size).convert("RGB"), "JPEG", quality=95), None),
    "L PNG": lambda *size: (encode(grey(*size), "PNG"), None),
    "P PNG": lambda *size: (encode(grey(*size).convert("P"), "PNG"), None),
    "CMYK TIFF": lambda *size: (encode(grey(*size).convert("CMYK"), "TIFF"), None),
    "turned JPEG": lambda *size: (turned(grey(*size).convert("RGB"), "JPEG"), None),
    "turned PNG": lambda *size: (turned(grey(*size), "PNG"), None),
    "turned 16-bit PNG": lambda *size: (turned(PIL.Image.fromarray(ramp(*size, top=65535).astype("u2")), "PNG"), None),
    "16-bit PNG": lambda *size: (encode(PIL.Image.fromarray(ramp(*size, top=65535).astype("u2")), "PNG"), None),
    "12 bits in a 16-bit PNG": lambda *size: (
        encode(PIL.Image.fromarray(ramp(*size, top=4095).astype("u2")), "PNG"),
        None,
    ),
    "12 bits in a 16-bit TIFF": lambda *size: (tiff(ramp(*size, top=4095).astype("u2")), None),
    "float TIFF with its range": lambda *size: (tiff(ramp(*size, top=1).astype("f4"), _340=0.0, _341=1.0), None),
    "32-bit TIFF with its range": lambda *size: (tiff(ramp(*size, top=9e6).astype("i4"), _340=0.0, _341=9e6), None),
    "RGBA PNG": lambda *size: (encode(half_transparent(*size), "PNG"), on_white(*size)),
    "LA PNG": lambda *size: (encode(half_transparent(*size).convert("LA"), "PNG"), on_white(*size)),
    "GIF of two frames": lambda *size: (
        encode(grey(*size), "GIF", save_all=True, append_images=[PIL.ImageOps.invert(grey(*size))]),
        None,
    ),
}
# What transformers.pipeline reads otherwise: it cuts depths off and drops transparency (docs/images.md).
NOT_IN_PIPELINES = {kind for kind in KINDS if "bit" in kind or "float" in kind or kind in ("RGBA PNG", "LA PNG")}


def write_folder(folder, contents, *, copies=4):
    """train/ and test/ with one folder per class; every content as a file of each class, in train `copies` times."""
    for split, count in (("train", copies), ("test", 1)):
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True)
            for number, (kind, content) in enumerate(contents.items()):
                for copy in range(count):
                    (folder / split / name / f"{number:02d} {kind} {copy}.img.png").write_bytes(content)
    return folder


def write_parquet(folder, contents):
    saved = _as_datasets(contents)
    folder.mkdir()
    for split, rows in saved.items():
        rows.to_parquet(folder / f"{split}.parquet")
    return folder


def write_saved(folder, contents):
    _as_datasets(contents).save_to_disk(folder)
    return folder


def _as_datasets(contents, copies=4):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=CLASSES))
    splits = {}
    for split, count in (("train", copies), ("test", 1)):
        images = [{"bytes": content, "path": None} for content in contents.values() for _ in range(count)]
        rows = {"image": images * 2, "label": [0] * len(images) + [1] * len(images)}
        splits[split] = datasets.Dataset.from_dict(rows, features=features)
    return datasets.DatasetDict(splits)


WAYS_IN = {"folder": write_folder, "parquet": write_parquet, "save_to_disk": write_saved}


def decode_test(folder, *, processor):
    data = DataArguments(dataset=str(folder), classes=CLASSES)
    return load_images(data, seed=0).decode("test", processor=processor)
