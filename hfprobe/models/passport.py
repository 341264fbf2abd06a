"""The passport of a model: what its config says, under `run`, of the run that trained it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from hfprobe.data.arguments import IDENTITY, DataArguments
from hfprobe.data.splits.parts import PARTS, Edits, Membership
from hfprobe.system.records import parse_record, to_json

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Taught:
    """By which teacher, and with which images, a student was trained.

    Attributes:
        teacher: its name with the revision, or the path of its folder.
        sha256: of its weights.
        sees: what it labelled: `image`, each image once, or `crop`, the crops that the student saw.
        views: crops of each image that it labelled; 1 with `image`.
        temperature: its calibrated logits were divided by it.
        weight: of its probabilities in the targets of labelled images.
        labelled, unlabelled: numbers of images.
        fingerprints: of the unlabelled images of each place.
        left_out: reason -> number of unlabelled images that were left out.
    """

    teacher: str
    sha256: str
    sees: Literal["image", "crop"]
    views: int
    temperature: float
    weight: float
    labelled: int
    unlabelled: int
    fingerprints: list[str]
    left_out: dict[str, int]


@dataclass(frozen=True)
class Passport:
    """How a model was trained, and on which images: an evaluation finds the same ones again.

    Attributes:
        dataset: hub id, or the absolute path of a local dataset.
        classes: those that were chosen; None: all of the dataset.
        images: the other settings that say which images these are, as far as they were set.
        data_fingerprint: of the images of training and validation.
        membership: which images each part has; None: not recorded.
        edits: what was changed after the division of the images.
        majority_class: the most frequent class of the training images.
        class_weights: class name -> weight in the loss; None without weights.
        precisions: setting -> precision, of what was not computed in float32.
        solution: what a solver chose on validation.
        taught: None for a model without a teacher.
        refit: whether the weights were solved on train + validation, once validation had chosen everything else.
        epochs, best_epoch: None until the training has ended, and where the weights were solved in closed form.
        seconds: duration of the training; None until it has ended.
    """

    recipe: str | None
    seed: int
    split_seed: int
    dataset: str
    classes: list[str] | None
    images: dict[str, Any]
    data_fingerprint: str
    membership: dict[str, Membership] | None
    majority_class: str
    class_weights: dict[str, float] | None
    precisions: dict[str, str]
    edits: Edits = field(default_factory=Edits)
    solution: dict[str, Any] = field(default_factory=dict)
    taught: Taught | None = None
    refit: bool = False
    epochs: float | None = None
    best_epoch: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.seed < 2**63 and 0 <= self.split_seed < 2**63):
            raise ValueError(f"the seeds are {self.seed} and {self.split_seed}; allowed: 0 or more")
        if self.membership is not None and self.membership.keys() != set(PARTS):
            raise ValueError(f"'membership' has {', '.join(self.membership)}; allowed: {', '.join(PARTS)}")
        hints = get_type_hints(DataArguments)
        for name, value in self.images.items():
            if name not in IDENTITY:
                raise ValueError(f"'images.{name}' is unknown; allowed: {', '.join(IDENTITY)}")
            parse_record(hints[name], value)

    @classmethod
    def parse(cls, run: Any) -> Passport | None:
        """The passport in `run` of a config; None for a model that no run trained, which has none.

        Raises:
            ValueError: it is damaged.
        """
        return None if run in (None, {}) else parse_record(cls, run)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Passport | None:
        """The passport of a model; None for a model that no run trained."""
        return cls.parse(getattr(model.config, "run", None))

    def stamp(self, model: PreTrainedModel) -> None:
        """Write the passport to the config of a model, which is saved with its weights."""
        model.config.run = to_json(self)

    def summary(self) -> dict[str, Any]:
        """JSON-able, for evaluations and profiles: what is known, without `membership`."""
        left_out = ("membership", "edits", "images", "precisions", "solution", "taught") + ("refit",) * (not self.refit)
        known = {name: value for name, value in to_json(self).items() if value is not None and name not in left_out}
        taught = {} if self.taught is None else {"teacher": self.taught.teacher}
        return known | self.images | self.precisions | self.solution | taught


def training_of(model: PreTrainedModel) -> dict[str, Any]:
    """`Passport.summary` of a model; empty for a model that no run trained."""
    passport = Passport.of(model)
    return {} if passport is None else passport.summary()
