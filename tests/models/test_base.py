"""The interface of every model."""

import json
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch

from helpers.images import CLASSES, draw_images
from helpers.models import PROBE
from hfprobe import models
from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels.store import ImageBatches, ImageSplit
from hfprobe.models import available_models, build_model, check_processor, families, family_of, find_family
from hfprobe.models.loading import load_model
from hfprobe.settings.arguments import RunArguments
from hfprobe.settings.run_config import make_run
from hfprobe.system.errors import InputError

SMALL = {"probe": PROBE}  # options with which a model is built fast and offline
# Models that are also tested with other options.
VARIANTS = [("cnn", {"image_size": 64})]


@pytest.fixture(params=[*((name, {}) for name in available_models()), *VARIANTS], ids=str)
def variant(request):
    """(name of a model, options)"""
    return request.param


@pytest.fixture
def family(variant):
    return find_family(variant[0])


@pytest.fixture
def built(family, variant):
    """(options, model, image processor, 20 images)"""
    torch.manual_seed(0)
    options = family.recipe_options(**SMALL.get(family.name, {}) | variant[1])
    images, labels = draw_images(20, classes=5)
    split = ImageSplit(images=images, labels=labels, index=np.arange(20))
    return options, *family.build(options=options, labels=CLASSES), split


def test_recipes_set_known_fields_only(family):
    known = {key for group in (RunArguments, DataArguments, family.Options) for key in group.__dataclass_fields__}
    for recipe, values in family.RECIPES.items():
        assert set(values) <= known
        # `auto` would look for a trained model.
        run = make_run(model=family.name, recipe=recipe, **{"teacher": "none"} if "teacher" in values else {})
        for key, value in values.items():
            if key == "teacher":
                continue
            owner = next(group for group in (run.training, run.data, run.model) if hasattr(group, key))
            assert getattr(owner, key) == value


def test_every_option_is_documented_and_a_field_that_a_recipe_sets_has_no_default(family):
    set_by_recipes = {key for values in family.RECIPES.values() for key in values}
    for option in fields(family.Options):
        assert option.metadata["help"].endswith((".", "]", ")"))
        assert (option.name in set_by_recipes) == (option.default is MISSING and option.default_factory is MISSING)


def test_names_and_aliases_belong_to_one_model_each(family):
    names = [name for other in families() for name in (other.name, *other.aliases, other.hub_name)]
    assert len(set(names)) == len(names)
    for name in (family.name, *family.aliases):
        assert find_family(name) is family


def test_step_changes_every_trained_parameter_and_no_other(family, built):
    options, model, processor, split = built
    family.initialize(model, options=options, images=ImageBatches(split, processor=processor))
    inputs = family.inputs(model, processor, split, name="images", options=options, train=True, augmentation={})
    inputs.set_epoch(1)
    batch = inputs.__getitems__([3, 4, 5, 6])
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    output = model.train()(**batch)
    assert output.logits.shape == (4, 5)
    output.loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    family.check_weights(model)


def test_inputs_of_a_subset_are_a_subset_of_the_inputs(family, built):
    options, model, processor, split = built
    for mirror in (False, True):
        inputs = family.inputs(model.eval(), processor, split, name="images", options=options, mirror=mirror)
        assert len(inputs) == len(split)
        assert inputs.preparation_seconds >= 0
        few, whole = inputs.take(np.array([2, 7])).__getitems__([0, 1]), inputs.__getitems__([2, 7])
        assert all(torch.equal(few[key], whole[key]) for key in whole)
        assert whole["labels"].tolist() == split.labels[[2, 7]].tolist()
        with torch.no_grad():  # what is read from a cache is what the model makes of the pixels
            pixels = ImageBatches(split, processor=processor, mirror=mirror).__getitems__([2, 7])
            torch.testing.assert_close(model(**whole).logits, model(**pixels).logits, atol=1e-4, rtol=1e-4)


def test_solved_model_predicts_its_training_images(family, built):
    options, model, processor, split = built
    if not family.is_solved(options):
        pytest.skip("trained by gradient steps")
    inputs = family.inputs(model, processor, split, name="images", options=options)
    chosen = family.solve(model, train=inputs, validation=inputs, options=options)
    assert json.loads(json.dumps(chosen)) == chosen != {}
    assert family.memory_needed(model, options=options, images=20) > 0
    with torch.no_grad():
        predicted = model(**inputs.__getitems__(range(20))).logits.argmax(-1)
    assert predicted.tolist() == split.labels.tolist()


def test_saved_model_loads_with_bit_identical_logits(family, built, tmp_path):
    _, model, processor, split = built
    batch = ImageBatches(split, processor=processor).__getitems__(range(8))
    model.train()(**batch)  # moves the running statistics of BatchNorm, which must travel too
    model.eval().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, its_processor = load_model(tmp_path)
    assert family_of(loaded) is family
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model.to(memory_format=torch.channels_last)(**batch).logits)
    assert [loaded.config.id2label[number] for number in range(5)] == CLASSES
    assert its_processor.to_dict() == processor.to_dict()
    assert json.loads(json.dumps(family.describe(loaded))) == family.describe(model)


@pytest.mark.parametrize(("key", "value"), [("size", {"height": 7, "width": 7}), ("do_normalize", False)])
def test_an_image_processor_of_another_model_is_refused(family, built, key, value):
    _, model, processor, _ = built
    check_processor(model, processor)
    with pytest.raises(InputError, match=re.escape(f"The image processor's {key} is {value}; allowed: ")):
        check_processor(model, type(processor)(**processor.to_dict() | {key: value}))


def test_flags_and_recipes_are_read_without_torch():
    code = (
        "import sys, hfprobe.models as models; models.families(); print(sorted({'torch', 'timm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_unknown_model_is_an_input_error():
    expected = (
        f"Unknown model 'resnet'. Available: {', '.join(available_models())}. "
        "To add one, write a folder of hfprobe/models with an object FAMILY, or register it as an entry point."
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        build_model("resnet", labels=CLASSES, options=None)


def test_a_registered_model_that_cannot_be_imported_is_named(monkeypatch):
    entry = EntryPoint("pixels", "no_such_package:FAMILY", models.ENTRY_POINTS)
    monkeypatch.setattr(models, "entry_points", lambda *, group: [entry])
    models._registered.cache_clear()
    expected = r"model 'pixels' \(no_such_package:FAMILY\) cannot be imported: No module named 'no_such_package'. Rep"
    with pytest.raises(InputError, match=expected):
        models.available_models()
    models._registered.cache_clear()
