"""The file of a label efficiency measurement."""

from __future__ import annotations

POINTS_FILE = "label_efficiency.json"
