"""A trained model for Python: it predicts, evaluates and saves itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datasets import Dataset
from transformers import BaseImageProcessor, PreTrainedModel

from hfprobe.data.arguments import DataArguments
from hfprobe.data.pixels.image_files import MAX_PIXELS
from hfprobe.data.splits.images import Images
from hfprobe.models import class_names_of
from hfprobe.models.loading import load_model
from hfprobe.models.own_images import load_images_of
from hfprobe.models.passport import Passport
from hfprobe.models.runtimes import Network, add_runtime
from hfprobe.settings.values import check_value
from hfprobe.system.errors import InputError, settings_instead_of_flags, shorten
from hfprobe.system.files import check_writable, replace_together
from hfprobe.system.machine import quiet_bars
from hfprobe.system.model_files import CONFIG_FILE
from hfprobe.tasks.evaluate.measure import evaluate_images
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.export.extra import check_extra
from hfprobe.tasks.export.result import Export
from hfprobe.tasks.predict.measure import ImageLike, predict_images
from hfprobe.tasks.predict.result import Predictions
from hfprobe.training.run_files import check_places


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
        network: a file of its export that answers for it; None: the model itself, in torch.
    """

    model: PreTrainedModel
    processor: BaseImageProcessor
    name: str
    revision: str
    folder: Path
    validation: dict[str, float] | None = None
    images: Images | None = None
    network: Network | None = None

    @property
    def labels(self) -> list[str]:
        """Class names, in the order of the label numbers."""
        return class_names_of(self.model)

    def __repr__(self) -> str:
        figures = "" if self.validation is None else f", validation accuracy {self.validation['accuracy']:.2%}"
        name = self.name if self.network is None else add_runtime(self.name, self.network.runtime)
        return (
            f"{name} ({type(self.model).__name__}, {self.model.num_parameters():,} parameters, classes "
            f"{', '.join(self.labels)}{figures}) in {self.folder}"
        )

    @settings_instead_of_flags()
    def predict(
        self,
        images: ImageLike | Dataset | Iterable[ImageLike],
        *,
        threshold: float | str = 0.5,
        temperature: bool = False,
        skip_unreadable: bool = False,
        max_pixels: int = MAX_PIXELS,
    ) -> Predictions:
        """Classify new images by the preprocessing that evaluation uses.

        Args:
            images: a path of a file or a folder, the bytes of a file, an open file, a dict with "bytes" or "path", a
                PIL image, an array of shape (H, W, 3) or (H, W) or a tensor of shape (3, H, W), (1, H, W), (H, W, 3) or
                (H, W) with uint8 values; several of these; or a Dataset or its column of images.
            threshold: an image whose most probable class has a lower probability is not in `Predictions.sure`. "auto"
                is the threshold that training chose on validation so that 95 % of the other answers are correct for
                images from the same source; "auto:0.9", "auto:0.98" and "auto:0.99" are those for other accuracies.
            temperature: whether to calibrate the probabilities with the temperature that training fitted.
            skip_unreadable: whether an image that cannot be read is listed in `Predictions.unreadable`.
            max_pixels: images with more pixels cannot be read. Each takes 4 bytes of memory.

        Raises:
            InputError: there is no image, or an image cannot be read and is not skipped; the model has no such
                threshold.
        """
        return predict_images(
            images,
            model=self.model,
            processor=self.processor,
            threshold=threshold,
            temperature=temperature,
            skip_unreadable=skip_unreadable,
            max_pixels=check_value("max_pixels", max_pixels, DataArguments) or MAX_PIXELS,
            network=self.network,
        )

    @settings_instead_of_flags()
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
            network=self.network,
        )

    @settings_instead_of_flags()
    @quiet_bars()
    def export(
        self,
        images: Images | None = None,
        *,
        quantize: Literal["none", "int8"] = "none",
        max_loss: float = 0.5,
    ) -> Export:
        """Write the model as ONNX files into the folder `onnx` of its own folder, as `hfprobe export` does.

        Args:
            images: whose test images check that the files answer as the model; None for those that it was trained with.
            quantize: "int8" for files in int8 too.
            max_loss: percentage points of accuracy that int8 may lose.

        Returns:
            What was measured, with the checksums of the files.

        Raises:
            InputError: the extra `export` is not installed; the model cannot be exported.
            CheckFailedError: the files answer otherwise than the model, or lose too much in int8; nothing was written.
            MachineError: the disk is full.
        """
        if quantize not in ("none", "int8"):
            raise InputError(f"quantize is {shorten(repr(quantize))}; allowed: 'none', 'int8'.")
        if not 0 <= max_loss <= 100:
            raise InputError(f"max_loss is {shorten(max_loss)}; allowed: 0 to 100 percentage points.")
        check_extra()
        from hfprobe.tasks.export.measure import export_model

        # From its files, as they are published: the model in memory may be on a GPU.
        model, processor = load_model(self.folder)
        return export_model(
            model=model,
            processor=processor,
            images=images or self.images or load_images_of(model),
            folder=self.folder,
            name=self.name.rpartition("/")[2].partition("@")[0],
            int8=quantize == "int8",
            max_loss=max_loss,
        )

    @settings_instead_of_flags()
    @quiet_bars()
    def save(self, folder: str | Path) -> Path:
        """Write the model to a folder that `hfprobe.load` and transformers' `from_pretrained` read.

        Args:
            folder: new, or empty, or holding a model, which is replaced.

        Returns:
            The folder.

        Raises:
            InputError: the folder cannot be written, holds other files, or is or lies in that of the dataset.
            MachineError: the disk is full.
        """
        folder = Path(folder)
        check_writable(folder, flag="folder")
        passport = Passport.of(self.model)
        trained = None if passport is None else passport.dataset
        for dataset in (trained, self.images.arguments.dataset if self.images else None):
            check_places(folder, flag="folder", dataset=dataset)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file():
            raise InputError(f"'{shorten(folder)}' holds files that are not a model. Pass a new or an empty folder.")
        with replace_together(folder, last=CONFIG_FILE) as staging:
            self.model.save_pretrained(staging)
            self.processor.save_pretrained(staging)
        return folder
