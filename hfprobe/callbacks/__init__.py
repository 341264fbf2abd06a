"""Trainer callbacks, one file each. All derive what they need from the Trainer's state, so a resumed run goes on as if
it had never stopped."""

from hfprobe.callbacks.early_stopping import EarlyStopping
from hfprobe.callbacks.epochs import SetEpoch
from hfprobe.callbacks.histograms import Histograms
from hfprobe.callbacks.profiler import Profiler
from hfprobe.callbacks.progress import EpochProgress
from hfprobe.callbacks.signals import StopOnSignal

__all__ = ["EarlyStopping", "EpochProgress", "Histograms", "Profiler", "SetEpoch", "StopOnSignal"]
