"""What hfprobe does, for Python: images in, models out, evaluations, comparisons. The command line calls the same code.

Errors are those of the command line, `hfprobe.InputError` (a ValueError), `hfprobe.CheckFailedError` and
`hfprobe.MachineError` (RuntimeErrors), with the same one-line texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.config.run import make_run
from hfprobe.data import splits
from hfprobe.data.arguments import DEFAULT_DATASET, IDENTITY
from hfprobe.data.splits import Images
from hfprobe.evaluation import comparison
from hfprobe.evaluation.comparable import make_comparable, name_results
from hfprobe.evaluation.evaluate import evaluate_images, load_images_of
from hfprobe.evaluation.predict import PictureLike, predict_pictures
from hfprobe.evaluation.predictions import Predictions
from hfprobe.evaluation.results import EvalResult
from hfprobe.evaluation.verdict import Comparison
from hfprobe.hub.local import resolve_model
from hfprobe.models.loading import load_model
from hfprobe.reporting import save_comparison, save_evaluation
from hfprobe.system.errors import InputError, shorten
from hfprobe.system.files import replace_together, require_writable
from hfprobe.system.machine import quiet_bars
from hfprobe.system.model_files import CONFIG_FILE
from hfprobe.training.output_folder import check_places
from hfprobe.training.run_training import run_training

# Settings of `train` that say which images these are; `load_images` has set them.
IMAGE_SETTINGS = ("dataset", "classes", "max_train_samples", "max_eval_samples", "split_seed", *IDENTITY)


@dataclass(frozen=True, repr=False)
class Model:
    """A trained model, its image processor, and the images that it was trained on.

    Attributes:
        model: a PreTrainedModel of transformers.
        processor: its image processor.
        name: in evaluations and comparisons, such as "hfprobe/simple-cnn".
        revision: of the model in the hub folder, or the name of its folder.
        folder: where it is kept.
        validation: `accuracy`, `macro_f1`, `balanced_accuracy` and `loss` on the validation images; None for a model
            that was loaded.
        images: that it was trained on; None for a model that was loaded, which finds them again by its config.
    """

    model: PreTrainedModel
    processor: BaseImageProcessor
    name: str
    revision: str
    folder: Path
    validation: dict[str, float] | None = None
    images: Images | None = None

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the label numbers."""
        return [self.model.config.id2label[number] for number in range(self.model.config.num_labels)]

    def __repr__(self) -> str:
        figures = "" if self.validation is None else f", validation accuracy {self.validation['accuracy']:.2%}"
        return (
            f"{self.name} ({type(self.model).__name__}, {self.model.num_parameters():,} parameters, classes "
            f"{', '.join(self.labels)}{figures}) in {self.folder}"
        )

    def predict(
        self,
        pictures: PictureLike | Iterable[PictureLike],
        *,
        temperature: bool = False,
        skip_unreadable: bool = False,
    ) -> Predictions:
        """Classify new pictures by the preprocessing that evaluation uses.

        Args:
            pictures: a path, a PIL image or an array of shape (H, W, 3) or (H, W) with uint8 values; or a sequence of
                these.
            temperature: whether to calibrate the probabilities with the temperature that training fitted.
            skip_unreadable: whether a picture that cannot be read is listed in `Predictions.unreadable`.

        Raises:
            InputError: there is no picture, or a picture cannot be read and is not skipped.
        """
        return predict_pictures(
            pictures,
            model=self.model,
            processor=self.processor,
            temperature=temperature,
            skip_unreadable=skip_unreadable,
        )

    @quiet_bars()
    def evaluate(
        self,
        images: Images | None = None,
        *,
        split: Literal["test", "validation"] = "test",
        temperature: bool = False,
        tta: bool = False,
    ) -> EvalResult:
        """Predict every image of a split, and compare with its labels.

        Args:
            images: None for those that the model was trained with, in the same split.
            temperature: whether to calibrate the probabilities with the temperature that training fitted.
            tta: whether to average the probabilities of each image and its mirror image.

        Raises:
            InputError: the images are not of the model's classes; no such split.
        """
        if split not in ("test", "validation"):
            raise InputError(f"split is {shorten(repr(split))}; allowed: 'test', 'validation'.")
        images = images or self.images or load_images_of(self.model)
        return evaluate_images(
            model=self.model,
            processor=self.processor,
            images=images,
            split=split,
            name=self.name,
            revision=self.revision,
            temperature=temperature,
            tta=tta,
        )

    @quiet_bars()
    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder that `hfprobe.load` and transformers' `from_pretrained` read.

        Args:
            folder: new, or empty, or holding a model, which is replaced.

        Returns:
            The folder.

        Raises:
            InputError: the folder cannot be written, or holds other files.
            MachineError: the disk is full.
        """
        folder = Path(folder)
        require_writable(folder, flag="folder")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file():
            raise InputError(f"'{shorten(folder)}' holds files that are not a model. Pass a new or an empty folder.")
        with replace_together(folder, last=CONFIG_FILE) as staging:
            self.model.save_pretrained(staging)
            self.processor.save_pretrained(staging)
        return folder


@quiet_bars()
def load_images(
    dataset: str | Path = DEFAULT_DATASET,
    *,
    classes: Sequence[str] | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 42,
    **settings: Any,
) -> Images:
    """Load images, choose classes, and make the parts train, validation and test.

    A split that the dataset has is used. What it lacks is drawn from its training images: 20 % to validate, and 20 % to
    test. Nothing is decoded yet: each model asks for the images at its own resolution.

    Args:
        dataset: hub id, or local folder or file: one folder per class, CSV, parquet, save_to_disk, or zip.
        classes: to keep, in the order of the label numbers; None: all of them, and of CIFAR-10 the five of the default
            task.
        max_train_samples, max_eval_samples: at most this many images, stratified; None: all.
        seed: of the splits that are drawn, and of subsets.
        settings: what `hfprobe train --help` lists about the dataset: dataset_config, train_split, validation_split,
            test_split, image_column, label_column, group_column, group_by, skip_unreadable.

    Raises:
        InputError: no such dataset or class; a class with too few images.
    """
    unknown = [name for name in settings if name not in IDENTITY]
    if unknown:
        raise InputError(f"Unknown setting '{shorten(unknown[0])}' of images. Allowed: {', '.join(IDENTITY)}.")
    limits: dict[str, Any] = {"max_train_samples": max_train_samples, "max_eval_samples": max_eval_samples}
    if classes is not None:
        settings["classes"] = list(classes)
    # The checks of the command line, before anything is loaded.
    data = make_run(dataset=str(dataset), split_seed=seed, **limits, **settings).data
    return splits.load_images(data, seed=seed)


def train(model: str, images: Images, *, recipe: str | None = None, **settings: Any) -> Model:
    """Train a model on the Hugging Face Trainer, as `hfprobe train` does, and push it to the local hub folder.

    Args:
        model: "cnn" or "probe".
        images: from `load_images`.
        recipe: of the model; None: its first.
        settings: what `hfprobe train --help` lists, such as epochs, lr, batch_size, seed, output_dir, overwrite and
            resume; for the probe also backbone, backbone_weights and head.

    Returns:
        The model of the best epoch on validation.

    Raises:
        InputError: a setting that cannot be used; an output folder that holds a run.
        CheckFailedError: the loss is not finite, or a check of the result failed.
        MachineError: disk or memory ran out.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("hfprobe.train runs in one process. For several: accelerate launch -m hfprobe train.")
    told = [name for name in IMAGE_SETTINGS if name in settings]
    if told:
        raise InputError(f"{', '.join(told)} cannot be set in train: the images say it. Set it in load_images.")
    chosen = {name: getattr(images.arguments, name) for name in IMAGE_SETTINGS if name != "split_seed"}
    config = make_run(model=model, recipe=recipe, **chosen, split_seed=images.seed, **settings)
    with quiet_bars(own=not config.training.disable_tqdm):
        finished = run_training(config, images=images)
    assert finished is not None  # the only process is the main one
    return Model(
        model=finished.model.eval(),
        processor=finished.processor,
        name=finished.revision.name,
        revision=finished.revision.commit,
        folder=finished.revision.path,
        validation=finished.result.metrics,
        images=images,
    )


@quiet_bars()
def load(model: str | Path, *, hub_dir: str | Path = "hub") -> Model:
    """A model from a folder or from the local hub folder; no code from the folder is run.

    Args:
        model: a folder that `Model.save` or a run wrote, or a name in the hub folder: "hfprobe/simple-cnn", with "@"
            and a revision where it is not the newest.

    Raises:
        InputError: no such model; damaged files.
    """
    folder = resolve_model(model=str(model), hub_dir=hub_dir)
    loaded, processor = load_model(folder)
    name = str(model).rstrip(os.sep)
    return Model(model=loaded, processor=processor, name=name, revision=folder.name, folder=folder)


def evaluate(
    model: Model | str | Path,
    images: Images | None = None,
    *,
    split: Literal["test", "validation"] = "test",
    temperature: bool = False,
    tta: bool = False,
) -> EvalResult:
    """`Model.evaluate`, for a model or for what `load` takes."""
    loaded = model if isinstance(model, Model) else load(model)
    return loaded.evaluate(images, split=split, temperature=temperature, tta=tta)


def compare(*results: EvalResult, names: Sequence[str] | None = None, profile: str | Path | None = None) -> Comparison:
    """Compare two or more evaluations of the same images: differences, intervals, tests and a verdict.

    Args:
        names: of the evaluations; None: their models' names.
        profile: a folder that `hfprobe profile` wrote, for speed and memory.

    Raises:
        InputError: fewer than two evaluations; evaluations of different images or classes; names that are not distinct.
    """
    if len(results) < 2:
        raise InputError(f"{len(results)} evaluations cannot be compared; allowed: two or more.")
    called = name_results(results) if names is None else list(names)
    if len(set(called)) != len(results) or len(called) != len(results):
        raise InputError(f"names are {shorten(called)}; allowed: {len(results)} different names.")
    comparable = make_comparable(dict(zip(called, results, strict=True)), places=called)
    costs = None if profile is None else comparison.load_profile(Path(profile))
    return Comparison(results=comparable, content=comparison.compare(comparable, profile=costs))


def save_report(result: EvalResult | Comparison, folder: str | Path) -> Path:
    """Write an evaluation or a comparison to a folder: its JSON, tables, and a page for a browser.

    Returns:
        The page, report.html or comparison.html.

    Raises:
        InputError: the folder cannot be written, or is that of the dataset.
        MachineError: the disk is full.
    """
    folder = Path(folder)
    require_writable(folder, flag="folder")
    if isinstance(result, Comparison):
        return save_comparison(result, folder)
    check_places(folder, flag="folder", dataset=result.provenance.get("run_dataset"))
    return save_evaluation(result, folder)
