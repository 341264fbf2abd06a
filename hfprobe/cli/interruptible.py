"""Imported first by scripts and by `hfprobe`, for its effect: Ctrl-C is one line, also during the slow imports."""

from hfprobe.system import process

process.install()
