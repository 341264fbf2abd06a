"""The parts of a page that a Content-Security-Policy lets a browser use."""

from __future__ import annotations

import base64
import hashlib
import re


def name_parts(text: str, tag: str) -> str:
    """The sources of a Content-Security-Policy that name the inline scripts or styles of a page by their checksums.

    Args:
        tag: "script" or "style".
    """
    checksums = (
        hashlib.sha256(part.encode()).digest() for part in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    )
    return " ".join(f"'sha256-{base64.b64encode(checksum).decode()}'" for checksum in checksums)
