"""Load a model from a folder: the content of every file is checked, and no code from the folder is run.

Unless stated otherwise, functions raise a ValueError that names the file, what was found in it and what is allowed.
"""

from __future__ import annotations

import json
from pathlib import Path
from reprlib import repr as shortened
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, BaseImageProcessor, PretrainedConfig, PreTrainedModel

from hfprobe.models import check_preprocessing, family_of, register_models
from hfprobe.models.passport import Passport
from hfprobe.models.thresholds import Thresholds
from hfprobe.system.errors import InputError, first_line, list_some
from hfprobe.system.model_files import CONFIG_FILE, PROCESSOR_FILE, WEIGHTS_FILE
from hfprobe.system.process import command

TEMPERATURES = (0.001, 1000)  # allowed range; training fits values from 0.05 to 20


def read_json(file: Path) -> dict[str, Any]:
    """The content of a JSON file that holds an object."""
    try:
        values = json.loads(file.read_text())
    except OSError as error:
        raise ValueError(f"{file.name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file.name} holds {shortened(values)}; allowed: an object")
    return values


def load_config(folder: Path) -> PretrainedConfig:
    """The config of a model of hfprobe; the config class of each model checks its own values."""
    values = read_json(folder / CONFIG_FILE)
    classes = {model.config_class.model_type: model.config_class for model in register_models()}
    found = values.get("model_type")
    if not isinstance(found, str) or found not in classes:
        raise ValueError(f"{CONFIG_FILE}: model_type is {shortened(found)}; allowed: {', '.join(classes)}")
    try:
        check_labels(values)
        try:
            Passport.parse(values.get("run"))
        except ValueError as error:
            raise ValueError(f"run: {error}") from error
        if values.get("dtype", "float32") != "float32":
            raise ValueError(f"dtype is {shortened(values['dtype'])}; allowed: 'float32'")
        temperature, (low, high) = values.get("calibration_temperature"), TEMPERATURES
        if temperature is not None and not (type(temperature) in (int, float) and low <= temperature <= high):
            raise ValueError(f"calibration_temperature is {shortened(temperature)}; allowed: {low} to {high}")
        try:
            Thresholds.parse(values.get("answer_thresholds"))
        except ValueError as error:
            raise ValueError(f"answer_thresholds: {error}") from error
        return classes[found].from_dict(values)
    except Exception as error:  # transformers raises several types of errors, with messages of several lines
        raise ValueError(f"{CONFIG_FILE}: {' '.join(str(error).split())}") from error


def check_labels(values: dict[str, Any]) -> None:
    """Check that labels are numbered from 0 to n - 1 and that their names are distinct."""
    names, numbers = values.get("id2label"), values.get("label2id")
    if names is None and numbers is None:  # transformers leaves out its default, LABEL_0 and LABEL_1
        names, numbers = {"0": "LABEL_0", "1": "LABEL_1"}, {"LABEL_0": 0, "LABEL_1": 1}
    if not isinstance(names, dict) or set(names) != {str(number) for number in range(len(names))}:
        raise ValueError(f"id2label is {shortened(names)}; allowed: a name for each number from 0 on")
    labels = [names[str(number)] for number in range(len(names))]
    for label in labels:
        if not isinstance(label, str) or label.splitlines() != [label] or labels.count(label) > 1:
            raise ValueError(f"id2label has the name {shortened(label)}; allowed: one line of text, each name once")
    inverse = {label: number for number, label in enumerate(labels)}
    # As JSON, because True == 1.
    if json.dumps(numbers, sort_keys=True) != json.dumps(inverse, sort_keys=True):
        raise ValueError(f"label2id is {shortened(numbers)}; allowed: the numbers of id2label, {shortened(inverse)}")
    count = values.get("num_labels", len(labels))
    if type(count) is not int or count != len(labels):
        raise ValueError(f"num_labels is {shortened(count)}; allowed: {len(labels)}, as in id2label")


def load_weights(config: PretrainedConfig, folder: Path) -> PreTrainedModel:
    """The model of a config with the weights in a folder, which must be exactly its parameters and buffers, all finite.

    from_pretrained is not used: it initialises missing weights at random, and reads other files that a config can name.
    """
    model_class = next(model for model in register_models() if model.config_class is type(config))
    try:
        with torch.device("meta"):  # shapes without memory
            model = model_class(config)
    except Exception as error:  # timm and torch raise many types of errors for invalid sizes
        raise ValueError(f"{CONFIG_FILE}: {' '.join(str(error).split())}") from error
    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        try:
            weights |= load_file(file)
        except Exception as error:  # safetensors has its own error class; a file may be missing
            raise ValueError(f"{file.name} cannot be read: {error}") from error
    difference = describe_difference(weights, model.state_dict())
    if difference:
        raise ValueError(f"{WEIGHTS_FILE} does not match {CONFIG_FILE}; {difference}")
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"{WEIGHTS_FILE}: {broken[0]} holds values that are not finite")
    # Copied, because tensors in a memory-mapped file are not aligned, which makes kernels slower.
    model.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=True)
    try:
        family_of(model).check_weights(model)
    except ValueError as error:
        raise ValueError(f"{WEIGHTS_FILE} does not match {CONFIG_FILE}; {error}") from error
    return model


def describe_difference(weights: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> str | None:
    """Describe how the names, shapes and dtypes of weights differ from the wanted ones; None if they are equal.

    Of each kind of difference, three names are shown, and the number of the others.
    """
    missing = [key for key in wanted if key not in weights]
    unexpected = [key for key in weights if key not in wanted]
    both = [key for key in wanted if key in weights]
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in both
        if weights[key].shape != wanted[key].shape
    ]
    # dtypes are not converted, so that the weights stay bit-identical to those of the source.
    types = [
        f"{key} {weights[key].dtype} instead of {wanted[key].dtype}"
        for key in both
        if weights[key].dtype != wanted[key].dtype
    ]
    problems = {"missing": missing, "unexpected": unexpected, "different shape": shapes, "different dtype": types}
    found = [f"{problem}: {list_some(keys, 3)}" for problem, keys in problems.items() if keys]
    return "; ".join(found) or None


def weight_files(folder: Path) -> list[Path]:
    """The path of model.safetensors, or of the files that its index names."""
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    index = folder / f"{WEIGHTS_FILE}.index.json"
    if not index.is_file():
        raise ValueError(f"{WEIGHTS_FILE} is missing")
    return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]


def load_processor(model: PreTrainedModel, folder: Path) -> BaseImageProcessor:
    """The image processor in a folder, checked against the preprocessing that the model was trained with."""
    values = read_json(folder / PROCESSOR_FILE)
    if (folder / "processor_config.json").exists():  # transformers would read this file instead
        raise ValueError(f"the folder holds processor_config.json; allowed: {PROCESSOR_FILE} only")
    try:
        check_preprocessing(model, values)
        return AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers has no error class for unexpected values
        raise ValueError(f"{PROCESSOR_FILE}: {error}") from error


def load_model(folder: str | Path) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Load the model and the image processor in a folder; no code from the folder is run.

    Returns:
        The model, in evaluation mode and channels last, and its image processor.

    Raises:
        InputError: the folder does not hold a complete model of hfprobe with valid values, or its image processor does
            not match the model.
    """
    folder = Path(folder)
    check_weights_inside(folder)
    try:
        config = load_config(folder)
        model = load_weights(config, folder)
        processor = load_processor(model, folder)
    except Exception as error:  # transformers and safetensors raise many types of errors for a damaged folder
        raise InputError(
            f"'{folder}' does not hold a model that hfprobe can load: {first_line(error)}. Pass a folder or a name "
            f"that {command('train')} printed."
        ) from error
    return model.eval().to(memory_format=torch.channels_last), processor


def check_weights_inside(folder: Path) -> None:
    """Check that the index of weights in a model folder names only files in this folder.

    Raises:
        InputError: the index is damaged, or names a file outside the folder.
    """
    for index in folder.glob("*.index.json"):
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"'{index}' is damaged. Pass another model folder.") from error
        for name in names:
            if not isinstance(name, str) or Path(name).name != name or (folder / name).is_symlink():
                raise InputError(f"'{index}' names '{name}', which is outside the folder. Do not use this model.")
