"""Trainer callbacks, one file each. All derive what they need from the Trainer's state, so a resumed run continues
as if it had never stopped."""

from hfprobe.callbacks.early_stopping import EarlyStopping
from hfprobe.callbacks.epochs import SetEpoch
from hfprobe.callbacks.histograms import Histograms
from hfprobe.callbacks.profiler import Profiler
from hfprobe.callbacks.progress import EpochLines, StepBar
from hfprobe.callbacks.signals import StopOnSignal
from hfprobe.callbacks.tensorboard import Curves

__all__ = ["Curves", "EarlyStopping", "EpochLines", "Histograms", "Profiler", "SetEpoch", "StepBar", "StopOnSignal"]
