"""What single stages of a decision write, each in a file of its own. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from hfprobe.system.records import RecordFile


@dataclass(frozen=True)
class Rates:
    """Seconds that a model takes on this machine and these images.

    Attributes:
        start: to build it.
        decode: per image.
        train: per training image: to extract its features, or of a gradient step.
        infer: per image, in float32.
        batch: images in a batch of `profile`.
        solve: per training image, of a model that is solved in closed form.
        epoch: per epoch beside its steps and its evaluation, such as to save the weights.
        audit: per image, to compare it with others and to question its label, once its features are there.
    """

    start: float
    decode: float
    train: float
    infer: float
    batch: int
    solve: float = 0.0
    epoch: float = 0.0
    audit: float = 0.0


@dataclass(frozen=True)
class Measurement(RecordFile):
    """What was measured before the plan.

    Attributes:
        rates: of each variant of each model, see `Run.variants`.
        spent: seconds of the command until then.
    """

    FILE = "rates.json"
    WHAT = "measurement"
    REMEDY = "Run the decision again."

    rates: dict[str, Rates]
    spent: float


@dataclass(frozen=True)
class Ranked:
    """One variant of a model in a round of the ranking, on validation.

    Attributes:
        name: of the variant, such as that of its backbone.
        accuracy, interval: of the exact head, with its 95 % interval.
        neighbours: accuracy of the most frequent class among the nearest neighbours in the training images.
        difference: interval of its accuracy minus that of the best one, on the same images; None: it is the best.
        seconds: that its features and its head took.
        kept: whether it is not clearly worse than the best one.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    neighbours: float
    difference: tuple[float, float] | None
    seconds: float
    kept: bool


@dataclass(frozen=True)
class Round:
    """A round of the ranking, on some of the training and validation images; `ranked`: the best first."""

    train: int
    validation: int
    ranked: list[Ranked]


@dataclass(frozen=True)
class Ranking(RecordFile):
    """Which variant of each model was chosen, and by what.

    Attributes:
        rounds: family -> rounds, each with the variants that the one before has kept.
        chosen: family -> its variant.
    """

    FILE = "ranking.json"
    WHAT = "ranking"
    REMEDY = "Run the decision again."

    rounds: dict[str, list[Round]]
    chosen: dict[str, str]


@dataclass(frozen=True)
class Extracted(RecordFile):
    """How many images of each part have features; in a budget, they may be fewer than planned."""

    FILE = "extracted.json"
    WHAT = "record of the features"
    REMEDY = "Run the decision again."

    train: int
    evaluation: int


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy of a solved model on validation with few training images.

    Attributes:
        shots: training images per class.
        accuracy: mean over the draws of these images; `deviation`: standard deviation over them.
        draws: their number.
        n: number of validation images.
    """

    shots: int
    accuracy: float
    deviation: float
    draws: int
    n: int


@dataclass(frozen=True)
class LabelCurve(RecordFile):
    """Accuracy against training images per class."""

    FILE = "label_curve.json"
    WHAT = "curve"
    REMEDY = "Run the decision again."

    points: list[CurvePoint]
