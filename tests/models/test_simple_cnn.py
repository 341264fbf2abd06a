import copy
import math
import re

import pytest
import torch
from transformers import AutoModelForImageClassification

from helpers.images import CLASSES
from hfprobe.data.pixels.transforms import fit_images
from hfprobe.models import build_model, find_family
from hfprobe.settings.run_config import make_run


@pytest.fixture
def cnn():
    torch.manual_seed(0)
    return build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options(head_scale=1.0))[0]


def test_parameter_count(cnn):
    assert cnn.num_parameters() == cnn.num_parameters(only_trainable=True) == 2_471_941


@pytest.fixture
def build(request):
    def build(**options):
        torch.manual_seed(0)
        return build_model("cnn", labels=CLASSES, options=find_family("cnn").recipe_options(**options))

    return build


@pytest.mark.parametrize("side", [33, 64, 100, 512])
def test_parameters_are_the_same_at_every_image_size(build, side):
    reference, model = build()[0], build(image_size=side)[0]
    assert model.config.image_size == side
    assert model.num_parameters() == 2_471_941
    mine, theirs = model.state_dict(), reference.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert model.eval()(torch.randn(1, 3, side, side)).logits.shape == (1, 5)


def test_at_32_x_32_nothing_is_averaged_and_adaptive_pooling_would_change_no_bit(build):
    model = build()[0].eval()
    assert [type(module).__name__ for module in model.features] == ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"] * 3
    images = torch.randn(4, 3, 32, 32)
    maps = model.features(images)
    assert maps.shape == (4, 256, 4, 4)
    assert torch.equal(torch.nn.AdaptiveAvgPool2d(4)(maps), maps)
    assert torch.equal(model(images).logits, model.classifier(maps))


@pytest.mark.parametrize("side", [64, 96, 224])
def test_a_larger_map_is_averaged_as_by_adaptive_pooling(build, side):
    model = build(image_size=side)[0].eval()
    images = torch.randn(2, 3, side, side)
    maps = model.features[:-1](images)
    torch.testing.assert_close(model.features(images), torch.nn.AdaptiveAvgPool2d(4)(maps))


@pytest.mark.parametrize("side", [40, 48, 64, 104, 224, 512])  # maps of 5 to 64 places a side
def test_every_place_of_a_larger_map_is_read(build, side):
    pool = build(image_size=side)[0].features[-1]
    maps = torch.ones(1, 1, side // 8, side // 8, requires_grad=True)
    pooled = pool(maps)
    assert torch.equal(pooled, torch.ones(1, 1, 4, 4))
    pooled.sum().backward()
    assert (maps.grad > 0).all()


def test_larger_photographs_are_scaled_by_their_shorter_side_and_cropped(build):
    image = torch.zeros(1, 3, 160, 200, dtype=torch.uint8)
    image[..., 20:180] = 255  # the centre
    fitted = fit_images(image, processor=build(image_size=64)[1])
    assert fitted.shape == (1, 3, 64, 64)
    assert (fitted[..., 1:-1] == 255).all()
    stripes = torch.zeros(1, 3, 160, 200, dtype=torch.uint8)
    stripes[..., ::2] = 255  # without antialiasing they would become wider stripes
    smooth = fit_images(stripes, processor=build(image_size=64)[1]).float()
    assert (smooth - 127.5).abs().max() < 40
    assert fit_images(image, processor=build()[1]).float().mean() < 210  # both sides are scaled: nothing is cut off


def test_principal_filters_do_not_depend_on_the_parts_that_images_are_read_in(build, monkeypatch):
    images = torch.randn(7, 3, 64, 64)
    filters = []
    for side in (1, 32, 1000):  # one image at a time, then all at once
        model = build(image_size=64)[0]
        monkeypatch.setattr("hfprobe.models.simple_cnn.modeling.IMAGE_SIZE", side)
        model.set_principal_filters(images)
        filters.append(model.features[0].weight[:27].detach())
    for other in filters[1:]:
        cosines = torch.nn.functional.cosine_similarity(other.flatten(1), filters[0].flatten(1)).abs()
        torch.testing.assert_close(cosines, torch.ones(27), atol=1e-3, rtol=0)


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
    model, _ = build_model("cnn", labels=CLASSES, options=options)
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
            "cnn", labels=CLASSES, options=find_family("cnn").recipe_options(head_scale=scale, dropout=0)
        )
        spreads[scale] = model(images).logits.std().item()
    assert spreads[0.2] == pytest.approx(0.2 * spreads[1.0], rel=1e-4)


def test_head_scale_out_of_range_is_refused():
    with pytest.raises(ValueError, match=re.escape("--head_scale is 0; allowed: more than 0, at most 1,000.")):
        find_family("cnn").recipe_options(head_scale=0)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_dropout_out_of_range_is_refused(dropout):
    with pytest.raises(ValueError, match=re.escape(f"--dropout is {dropout}; allowed: 0 or more, less than 1.")):
        find_family("cnn").recipe_options(dropout=dropout)


def test_reference_recipe_has_the_values_of_the_reference_experiment():
    run = make_run(model="cnn", recipe="reference")
    training = run.training
    assert (training.optimizer, training.learning_rate, training.weight_decay) == ("adam", 1e-3, 1e-4)
    assert (training.per_device_train_batch_size, training.num_train_epochs, training.patience) == (128, 100, 15)
    assert training.lr_scheduler_type == "reduce_lr_on_plateau"
    assert training.lr_scheduler_kwargs == {"mode": "max", "factor": 0.5, "patience": 5}
    assert (training.metric_for_best_model, run.model.dropout) == ("accuracy", 0.5)


def test_pooling_before_relu_changes_no_bit_of_outputs_and_gradients(cnn):
    reference = copy.deepcopy(cnn)
    modules = list(reference.features)
    for at in range(2, len(modules), 4):
        modules[at], modules[at + 1] = modules[at + 1], modules[at]
    reference.features = torch.nn.Sequential(*modules)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 5
    outputs = []
    for each in (cnn, reference):
        torch.manual_seed(0)  # of dropout
        outputs.append(each(images, labels))
        outputs[-1].loss.backward()
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    for one, other in zip(cnn.parameters(), reference.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
