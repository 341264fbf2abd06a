import re
import shutil

import PIL.Image
import pytest
import torch
from transformers import AutoModelForImageClassification

from helpers.hub_folders import copy_without_links, write_text
from helpers.images import CLASSES
from helpers.models import CARD, cat_model, save_model
from helpers.processes import in_a_process_without_hfprobe
from hfprobe.hub import local as hub
from hfprobe.system.errors import InputError


def test_round_trip_through_a_standard_client_gives_the_same_logits(pushed):
    model, hub_dir, _ = pushed
    loaded = AutoModelForImageClassification.from_pretrained(
        "hfprobe/simple-cnn", cache_dir=hub_dir, local_files_only=True
    )
    images = torch.randn(4, 3, 32, 32)
    assert torch.equal(loaded.eval()(images).logits, model(images).logits)
    assert loaded.config.id2label == dict(enumerate(CLASSES))


@pytest.mark.slow
def test_pipeline_in_a_process_without_hfprobe_loads_both_models_and_predicts_cat(pushed, tmp_path):
    _, hub_dir, revision = pushed
    save_model(tmp_path / "probe", "vit")
    PIL.Image.new("RGB", (50, 40)).save(tmp_path / "image.png")
    model, processor = cat_model(image_size=64)
    large = hub.push_model(model=model, processor=processor, hub_dir=tmp_path / "large", name="simple-cnn", card=CARD)
    printed = in_a_process_without_hfprobe(
        f"""
        from transformers import AutoModelForImageClassification, pipeline
        for folder in ({str(revision.path)!r}, {str(large.path)!r}):
            classify = pipeline("image-classification", model=folder, trust_remote_code=True)
            print(classify({str(tmp_path / "image.png")!r})[0]["label"], classify.model.config.image_size)
        classify = pipeline("image-classification", model={str(tmp_path / "probe")!r}, trust_remote_code=True)
        print(len(classify({str(tmp_path / "image.png")!r})))
        AutoModelForImageClassification.from_pretrained(
            "hfprobe/simple-cnn", cache_dir={str(hub_dir)!r}, local_files_only=True, trust_remote_code=True
        )
        """,
        tmp_path,
    )
    assert printed.splitlines() == ["cat 32", "cat 64", "5"]


def test_hub_folder_copied_without_links_can_be_read_and_pushed_to(pushed, tmp_path):
    _, hub_dir, revision = pushed
    copy = tmp_path / "copy"
    copy_without_links(hub_dir, copy)
    folder = hub.resolve_model(model="simple-cnn", hub_dir=copy)
    assert not any(file.is_symlink() for file in folder.iterdir())
    again = AutoModelForImageClassification.from_pretrained(
        "hfprobe/simple-cnn", cache_dir=copy, local_files_only=True, trust_remote_code=False
    )
    assert again.num_parameters() == 2_471_941
    (folder / "README.md").write_text("changed")
    with pytest.raises(InputError, match=re.escape(f"'README.md' of hfprobe/simple-cnn@{revision.commit[:12]} is ")):
        hub.resolve_model(model="simple-cnn", hub_dir=copy)
    newer = hub.push_files(write=write_text("{}"), hub_dir=copy, name="simple-cnn")
    assert hub.resolve_model(model="simple-cnn", hub_dir=copy) == newer.path


@pytest.mark.parametrize("linked", ["file", "snapshot", "repository"])
def test_links_to_files_outside_the_hub_folder_are_refused(tmp_path, linked):
    hub_dir = tmp_path / "hub"
    revision = hub.push_files(write=write_text("{}"), hub_dir=hub_dir, name="m")
    link = {
        "file": revision.path / "config.json",
        "snapshot": revision.path,
        "repository": hub_dir / "models--hfprobe--m",
    }[linked]
    outside = tmp_path / "outside"
    link.rename(outside)
    link.symlink_to(outside)
    if linked == "file":
        outside.unlink()
        outside.write_text("{}")
    with pytest.raises(InputError, match=re.escape(f"'m' has a file outside the hub folder '{hub_dir}': '")):
        hub.resolve_model(model="m", hub_dir=hub_dir)


def test_a_hub_folder_can_be_moved_and_linked_to(tmp_path):
    hub.push_files(write=write_text("{}"), hub_dir=tmp_path / "hub", name="m")
    (tmp_path / "hub").rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    assert (hub.resolve_model(model="m", hub_dir=tmp_path / "link") / "config.json").read_text() == "{}"


@pytest.mark.parametrize("model", ["../secret", "/nowhere/at/all", "hfprobe/../x", "nothing", "simple-cnn/../x"])
def test_invalid_model_names_are_an_input_error(pushed, model):
    _, hub_dir, _ = pushed
    expected = (
        f"No model '{model}': neither a folder nor a name in the hub folder '{hub_dir}', which has: simple-cnn. "
        "Train one: hfprobe train --model cnn"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        hub.resolve_model(model=model, hub_dir=hub_dir)


@pytest.mark.parametrize("revision", ["1234567", "abc", "../.."])
def test_unknown_revision_is_an_input_error(pushed, revision):
    _, hub_dir, known = pushed
    expected = f"No revision '{revision}' of simple-cnn. Known, newest first: {known.commit[:12]}."
    with pytest.raises(InputError, match=re.escape(expected)):
        hub.resolve_model(model=f"simple-cnn@{revision}", hub_dir=hub_dir)


def test_folder_without_a_model_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=re.escape(f"'{tmp_path}' is not a model folder: it has no config.json.")):
        hub.resolve_model(model=str(tmp_path), hub_dir=tmp_path / "hub")


HOSTILE = {
    "refs is a file": lambda place: replace_by_file(place / "refs"),
    "main is a folder": lambda place: ((place / "refs" / "main").unlink(), (place / "refs" / "main").mkdir()),
    "main leads nowhere": lambda place: link(place / "refs" / "main", "nowhere"),
    "main leads to itself": lambda place: link(place / "refs" / "main", "main"),
    "main is not text": lambda place: (place / "refs" / "main").write_bytes(b"\xff\xfe"),
    "snapshots is a file": lambda place: replace_by_file(place / "snapshots"),
    "snapshots leads nowhere": lambda place: link(place / "snapshots", "nowhere"),
    "the repository is a file": lambda place: replace_by_file(place),
    "the repository leads to itself": lambda place: link(place, place.name),
}


def replace_by_file(place):
    shutil.rmtree(place)
    place.touch()


def link(place, target):
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(target)


@pytest.mark.parametrize("damage", HOSTILE)
def test_damaged_hub_folder_is_a_one_line_error(tmp_path, damage):
    revision = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    HOSTILE[damage](tmp_path / "models--hfprobe--m")
    has_revision = damage.startswith(("main", "refs"))
    expected = (
        f"No revision 'main' of m. Known, newest first: {revision.commit[:12]}."
        if has_revision
        else f"No model 'm': neither a folder nor a name in the hub folder '{tmp_path}', which has: "
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        hub.resolve_model(model="m", hub_dir=tmp_path)
    if has_revision:
        assert hub.resolve_model(model=f"m@{revision.commit}", hub_dir=tmp_path) == revision.path


def test_only_revisions_are_listed(tmp_path):
    revision = hub.push_files(write=write_text("{}"), hub_dir=tmp_path, name="m")
    for name in ("copy of it", "0" * 39):
        (revision.path.parent / name).mkdir()
    (revision.path.parent / ("1" * 40)).symlink_to("nowhere")
    (revision.path.parent / ("2" * 40)).touch()
    assert hub.list_revisions(hub_dir=tmp_path, name="m") == [revision]


@pytest.mark.parametrize("model", ["a" * 300, "/".join(["a" * 200] * 25), "a\0b"])
def test_name_that_is_not_a_valid_path_is_an_input_error(tmp_path, model):
    with pytest.raises(InputError, match="neither a folder nor a name in the hub folder"):
        hub.resolve_model(model=model, hub_dir=tmp_path)


@pytest.mark.parametrize("hub_dir", ["file", "loop", "nowhere", "a" * 300, "a\0b"])
def test_missing_or_invalid_hub_folder_has_no_models(tmp_path, hub_dir):
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("missing")
    with pytest.raises(InputError, match="which has: nothing yet"):
        hub.resolve_model(model="m", hub_dir=tmp_path / hub_dir)
