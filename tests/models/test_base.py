"""The contract of every model, and what is SimpleCNN's own."""

import json
import math
import re
import subprocess
import sys
from dataclasses import MISSING, fields

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification

from helpers.images import draw_images
from hfprobe.config.arguments import RunArguments
from hfprobe.config.run import make_run
from hfprobe.data.arguments import DataArguments
from hfprobe.data.store import ImageBatches, ImageSplit
from hfprobe.models import available_models, build_model, check_processor, families, family_of, find_family
from hfprobe.models.loading import load_model
from hfprobe.system.errors import InputError

LABELS = ["airplane", "automobile", "bird", "cat", "dog"]


@pytest.fixture
def cnn():
    torch.manual_seed(0)
    return build_model("cnn", labels=LABELS, options=find_family("cnn").recipe_options(head_scale=1.0))[0]


# Options with which a model is built fast and offline.
SMALL = {"probe": {"backbone": "resnet10t", "backbone_weights": "random"}}


@pytest.fixture(params=available_models())
def family(request):
    return find_family(request.param)


@pytest.fixture
def built(family):
    """(options, model, image processor, 20 images)"""
    torch.manual_seed(0)
    options = family.recipe_options(**SMALL.get(family.name, {}))
    images, labels = draw_images(20, classes=5)
    split = ImageSplit(images=images, labels=labels, index=np.arange(20))
    return options, *family.build(options=options, labels=LABELS), split


def test_recipes_set_known_fields_only(family):
    known = {key for group in (RunArguments, DataArguments, family.Options) for key in group.__dataclass_fields__}
    for recipe, values in family.RECIPES.items():
        assert set(values) <= known
        run = make_run(model=family.name, recipe=recipe)
        for key, value in values.items():
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
    assert [loaded.config.id2label[number] for number in range(5)] == LABELS
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
        "To add one, write a folder of hfprobe/models with an object FAMILY."
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        build_model("resnet", labels=LABELS, options=None)


def test_parameter_count(cnn):
    assert cnn.num_parameters() == cnn.num_parameters(only_trainable=True) == 2_471_941


def assert_kaiming_normal(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            fan_in = module.weight[0].numel()
            expected = math.sqrt(2 / fan_in)
            # 5 standard errors of a standard deviation over this many draws
            tolerance = 5 * expected / math.sqrt(2 * module.weight.numel())
            assert abs(module.weight.std().item() - expected) < tolerance
            assert not module.bias.any()


def test_weights_are_kaiming_normal_after_construction_and_after_loading(cnn, tmp_path):
    assert_kaiming_normal(cnn)
    cnn.save_pretrained(tmp_path)
    assert_kaiming_normal(AutoModelForImageClassification.from_pretrained(tmp_path))


def test_loss_is_cross_entropy_and_every_parameter_gets_a_gradient(cnn):
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    output = cnn(images, labels=labels)
    assert output.logits.shape == (8, 5)
    expected = -output.logits.log_softmax(-1)[torch.arange(8), labels].mean()
    torch.testing.assert_close(output.loss, expected)
    assert cnn(images).loss is None
    output.loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in cnn.parameters())


def test_dropout_acts_in_training_only():
    images = torch.randn(4, 3, 32, 32)
    options = find_family("cnn").recipe_options(dropout=0.9)
    model, _ = build_model("cnn", labels=LABELS, options=options)
    assert not torch.equal(model.train()(images).logits, model(images).logits)
    assert torch.equal(model.eval()(images).logits, model(images).logits)


def test_outputs_of_principal_filters_are_uncorrelated_and_sorted_by_variance(cnn):
    smooth = torch.nn.functional.avg_pool2d(torch.randn(200, 3, 34, 34), 3, stride=1)  # neighbours are alike
    before = cnn.features[0].weight.detach().clone()
    cnn.set_principal_filters(smooth)
    filters = cnn.features[0].weight.detach()
    seen = torch.nn.functional.conv2d(smooth, filters[:27]).transpose(0, 1).flatten(1).double()
    moments = seen @ seen.T / seen.shape[1]
    strength = moments.diagonal()
    assert (strength[:-1] >= strength[1:]).all()
    assert strength[0] > 10 * strength[-1]
    correlation = moments / (strength[:, None] * strength).sqrt() - torch.eye(27)
    assert correlation.abs().max() < 1e-3
    torch.testing.assert_close(filters[27:54], -filters[:27])
    assert torch.equal(filters[54:], before[54:])
    length = before.flatten(1).norm(dim=1).mean().expand(54)
    torch.testing.assert_close(filters[:54].flatten(1).norm(dim=1), length)


def test_small_head_scale_gives_nearly_equal_initial_probabilities():
    images = torch.randn(64, 3, 32, 32)
    spreads = {}
    for scale in (1.0, 0.2):
        torch.manual_seed(0)
        model, _ = build_model(
            "cnn", labels=LABELS, options=find_family("cnn").recipe_options(head_scale=scale, dropout=0)
        )
        spreads[scale] = model(images).logits.std().item()
    assert spreads[0.2] == pytest.approx(0.2 * spreads[1.0], rel=1e-4)


def test_head_scale_out_of_range_is_refused():
    with pytest.raises(ValueError, match=re.escape("--head_scale is 0; allowed: more than 0, at most 1,000.")):
        find_family("cnn").recipe_options(head_scale=0)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_out_of_range_is_refused(dropout):
    with pytest.raises(ValueError, match=re.escape(f"--dropout is {dropout}; allowed: 0 <= dropout < 1.")):
        find_family("cnn").recipe_options(dropout=dropout)


def test_reference_recipe_has_the_values_of_the_reference_experiment():
    run = make_run(model="cnn", recipe="reference")
    training = run.training
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adam", 1e-3, 1e-4)
    assert (training.per_device_train_batch_size, training.num_train_epochs, training.patience) == (128, 100, 15)
    assert training.lr_scheduler_type == "reduce_lr_on_plateau"
    assert training.lr_scheduler_kwargs == {"mode": "max", "factor": 0.5, "patience": 5}
    assert (training.metric_for_best_model, run.model.dropout) == ("accuracy", 0.5)
