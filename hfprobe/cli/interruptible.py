"""Imported first by every script, for its effect: from here on Ctrl-C is one line, also during the slow imports."""

from hfprobe.system import process

process.install()
