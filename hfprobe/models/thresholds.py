"""The thresholds of a model for wished accuracies, which training chooses on validation and keeps in the config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfprobe.statistics.selective import ChosenThreshold
from hfprobe.system.errors import InputError
from hfprobe.system.ranges import ACCURACIES
from hfprobe.system.records import parse_record, to_json

if TYPE_CHECKING:  # slow to import
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Thresholds:
    """One threshold for each of ACCURACIES, in their order.

    Attributes:
        plain: of the probabilities as they are.
        calibrated: of the probabilities after the calibration temperature.
    """

    plain: list[ChosenThreshold]
    calibrated: list[ChosenThreshold]

    def __post_init__(self) -> None:
        for chosen in (self.plain, self.calibrated):
            if tuple(one.accuracy for one in chosen) != ACCURACIES:
                found = ", ".join(f"{one.accuracy:g}" for one in chosen)
                raise ValueError(f"the thresholds are for {found}; allowed: {', '.join(map(str, ACCURACIES))}")

    @classmethod
    def parse(cls, value: Any) -> Thresholds | None:
        """The thresholds in `answer_thresholds` of a config; None for a model that has none.

        Raises:
            ValueError: they are damaged.
        """
        return None if value is None else parse_record(cls, value)

    @classmethod
    def of(cls, model: PreTrainedModel) -> Thresholds | None:
        """The thresholds of a model; None if training stored none."""
        return cls.parse(getattr(model.config, "answer_thresholds", None))

    def stamp(self, model: PreTrainedModel) -> None:
        """Write the thresholds to the config of a model, which is saved with its weights."""
        model.config.answer_thresholds = to_json(self)

    def chosen(self, *, temperature: bool) -> list[ChosenThreshold]:
        """Those of calibrated or of plain probabilities."""
        return self.calibrated if temperature else self.plain


def find_threshold(model: PreTrainedModel, accuracy: float, *, temperature: bool) -> float:
    """The least probability of an answer with which a model reaches one of ACCURACIES.

    Raises:
        InputError: the model has no thresholds; its validation images show for none that it reaches the accuracy.
    """
    thresholds = Thresholds.of(model)
    if thresholds is None:
        raise InputError(
            "This model has no thresholds for 'auto': it was not trained by hfprobe. Train "
            "it again, or pass --threshold with a number."
        )
    found = thresholds.chosen(temperature=temperature)
    chosen = next(one for one in found if one.accuracy == accuracy)
    if chosen.threshold is None:
        reached = [f"auto:{one.accuracy:g}" for one in found if one.threshold is not None]
        others = f"one that does ({', '.join(reached)}) or a number" if reached else "a number"
        raise InputError(
            f"--threshold auto:{accuracy:g} has no threshold in this model: its {chosen.n:,} validation images do not "
            f"show that its answers reach {accuracy:.0%} accuracy. Pass --threshold with {others}, or train with more "
            "validation images."
        )
    return chosen.threshold
