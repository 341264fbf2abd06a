"""Trainer callbacks, one file each. All derive what they need from the Trainer's state, so a resumed run continues
as if it had never stopped."""

from hfprobe.training.callbacks.early_stopping import EarlyStopping
from hfprobe.training.callbacks.epochs import SetEpoch
from hfprobe.training.callbacks.histograms import Histograms
from hfprobe.training.callbacks.profiler import Profiler
from hfprobe.training.callbacks.progress import EpochLines, StepBar
from hfprobe.training.callbacks.signals import StopOnSignal
from hfprobe.training.callbacks.tensorboard import Curves

__all__ = ["Curves", "EarlyStopping", "EpochLines", "Histograms", "Profiler", "SetEpoch", "StepBar", "StopOnSignal"]
