"""What a folder from elsewhere may hold: refused in one line, nothing of it is run."""

import json
import pickle
import re
import shutil
from io import BytesIO

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from helpers.images import load_splits, make_dataset
from helpers.models import save_model
from helpers.runs import small_run
from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels.decoding import decode_images
from hfprobe.data.sources.columns import standard_columns
from hfprobe.data.splits.images import keep_classes
from hfprobe.models import build_model, find_family
from hfprobe.models.loading import load_model
from hfprobe.system.errors import InputError
from hfprobe.training.checkpoints import seal_checkpoint

pytestmark = pytest.mark.hostile


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def folder(tmp_path):
    return save_model(tmp_path / "model")


def test_a_checkpoint_of_a_run_is_a_model_folder(checkpoint):
    model, processor = load_model(checkpoint)
    weights = load_file(checkpoint / "model.safetensors")
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert processor.size == {"height": 32, "width": 32}


@pytest.fixture(scope="module")
def checkpoint(dataset_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    small_run(dataset_folder, folder, num_train_epochs=1)
    return folder / "checkpoint-4"


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_pickle_of_a_checkpoint_is_not_run(checkpoint, dataset_folder, tmp_path, name, legacy):
    copy = tmp_path / "run" / ".saving" / checkpoint.name
    copy.mkdir(parents=True)
    for file in checkpoint.iterdir():
        if file.name != "manifest.json":
            (copy / file.name).write_bytes(file.read_bytes())
    if legacy:
        (copy / name).write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
    else:
        torch.save(Bomb(tmp_path / "went off"), copy / name)
    seal_checkpoint(copy, tmp_path / "run" / checkpoint.name)  # whoever sends a bomb can write a manifest
    shutil.copy(checkpoint.parent / "run.json", tmp_path / "run")
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}/run/checkpoint-4' cannot be loaded: ")):
        small_run(dataset_folder, tmp_path / "run", num_train_epochs=2, resume=True)
    assert not (tmp_path / "went off").exists()


def test_code_in_a_pickle_of_a_model_folder_is_not_run(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    torch.save(Bomb(tmp_path / "went off"), folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=re.escape(f"'{folder}' does not hold a model that hfprobe can load: ")):
        load_model(folder)
    assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize("kept", [True, False])
def test_code_of_another_repository_is_not_fetched(folder, kept):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageClassification": "somebody/else--model.Model"}
    if not kept:
        config["model_type"] = "unheard-of"
    (folder / "config.json").write_text(json.dumps(config))
    if kept:  # the type is ours, so our class it is
        assert type(load_model(folder)[0]).__module__ == "hfprobe.models.simple_cnn.modeling"
    else:
        with pytest.raises(InputError, match=re.escape(f"'{folder}' does not hold a model that hfprobe can load: ")):
            load_model(folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/outside.safetensors", "link.safetensors"])
def test_an_index_of_weights_cannot_leave_the_folder(folder, name):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "link.safetensors").symlink_to("../outside.safetensors")
    weights = dict.fromkeys(load_file(folder.parent / "outside.safetensors"), name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))
    with pytest.raises(InputError, match=re.escape(f"names '{name}', which is outside the folder.")):
        load_model(folder)


def labelled(labels):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    images = pa.array([{"bytes": b"", "path": None}] * len(labels), features["image"].pa_type)
    table = pa.table({"image": images, "label": pa.array(labels, pa.int64())})
    rows = datasets.Dataset(datasets.table.InMemoryTable(table), info=datasets.DatasetInfo(features=features))
    return standard_columns(rows, data=DataArguments(dataset="data"))


def test_labels_that_are_none_are_left_out():
    assert keep_classes(labelled([0, None, 1, -1, 0]), classes=["dog", "cat"], split="train")["index"][:] == [0, 2, 4]


@pytest.mark.parametrize("label", [2, 10**12, -2])
def test_labels_out_of_range(label):
    message = (
        f"Row 1 of dataset 'data' has label {float(label):g}; allowed: 0 to 1, or no label. Fix or remove this row."
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        labelled([0, label, 1])


def encode(mode, *, format="PNG"):
    ramp = np.linspace(0, 255, 32 * 32).astype(np.uint8).reshape(32, 32)
    if mode == "I;16":
        image = PIL.Image.fromarray(ramp.astype(np.uint16) * 257)
    else:
        image = PIL.Image.fromarray(ramp).convert(mode)
    buffer = BytesIO()
    frames = {"save_all": True, "append_images": [image.rotate(90)]} if format == "GIF" else {}
    image.save(buffer, format=format, **frames)
    return buffer.getvalue(), ramp


@pytest.mark.parametrize(
    ("mode", "format"),
    [("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("CMYK", "TIFF"), ("P", "PNG"), ("L", "GIF")],
)
def test_images_of_every_kind_become_rgb(mode, format):
    content, ramp = encode(mode, format=format)
    features = datasets.Features(
        image=datasets.Image(decode=False), label=datasets.ClassLabel(names=["cat"]), index=datasets.Value("int64")
    )
    rows = {"image": [{"bytes": content, "path": None}], "label": [0], "index": [0]}
    rows = datasets.Dataset.from_dict(rows, features=features)
    processor = build_model("cnn", labels=["cat"], options=find_family("cnn").recipe_options())[1]
    split = decode_images(rows, part="train", split="train", processor=processor, source_key=f"{mode} {format}")
    assert split.images.shape == (1, 32, 32, 3)
    for channel in range(3):
        assert np.abs(split.images[0, :, :, channel].astype(int) - ramp).max() <= 3


def test_an_image_that_claims_400_million_pixels_is_refused_before_training(tmp_path):
    data = make_dataset(train=40, test=20)
    buffer = BytesIO()
    PIL.Image.new("1", (20_000, 20_000)).save(buffer, format="PNG")
    images = data["train"].cast_column("img", datasets.Image(decode=False))[:]["img"]
    images[3] = {"bytes": buffer.getvalue(), "path": None}
    rows = {"img": images, "label": data["train"]["label"][:]}
    data["train"] = datasets.Dataset.from_dict(rows, features=data["train"].features)
    data.save_to_disk(tmp_path / "data")
    with pytest.raises(InputError, match=re.escape("Image 3 of split 'train'")):
        load_splits(DataArguments(dataset=str(tmp_path / "data")), seed=0)
