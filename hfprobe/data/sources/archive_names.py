"""The names of the files in a zip file: their encoding, and which file of a folder each of them becomes."""

from __future__ import annotations

import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable

UTF8_FLAG = 0x800
UNICODE_PATH = 0x7075  # extra field of Info-ZIP, see section 4.6.9 of PKWARE's APPNOTE.TXT
# Katakana of half width: what most Chinese names in GBK look like when they are read as Shift-JIS.
_HALF_WIDTH = re.compile("[\uff61-\uff9f]")


def decode_names(members: Iterable[zipfile.ZipInfo]) -> tuple[list[str], str | None]:
    r"""The names of the members, with `/` between folders.

    A name that does not state its encoding is decoded by the first of these rules that suits all such names of the
    archive: UTF-8; cp437 and then cp1252, if every word reads like one of a Western language; Shift-JIS (cp932)
    without half-width katakana; GBK; Shift-JIS; cp437. Programs on Windows write `\` between folders.

    Returns:
        The names, and the encoding that was chosen for names that do not state it; None: all do, or are ASCII.
    """
    members = list(members)
    stated = {number: name for number, one in enumerate(members) if (name := _stated_name(one)) is not None}
    raw = {number: _raw_name(one) for number, one in enumerate(members) if number not in stated}
    encoding = _choose_encoding([name for name in raw.values() if not name.isascii()])
    names = stated | {number: name.decode(encoding or "ascii") for number, name in raw.items()}
    return [names[number].replace("\\", "/") for number in range(len(members))], encoding


def _raw_name(member: zipfile.ZipInfo) -> bytes:
    return member.orig_filename.encode("cp437")  # as zipfile decoded it; cp437 has a character for each byte


def _stated_name(member: zipfile.ZipInfo) -> str | None:
    """The name of a member that states that it is UTF-8, by a flag or in an extra field."""
    if member.flag_bits & UTF8_FLAG:
        return member.orig_filename
    extra = member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        # A version, a checksum of the name that it replaces, and the name.
        if kind == UNICODE_PATH and content[1:5] == struct.pack("<I", zlib.crc32(_raw_name(member))):
            return content[5:].decode()
    return None


def _choose_encoding(names: list[bytes]) -> str | None:
    if not names:
        return None
    for encoding, suits in (
        ("utf-8", None),
        ("cp437", _reads_western),
        ("cp1252", _reads_western),
        ("cp932", lambda text: not _HALF_WIDTH.search(text)),
        ("gbk", None),
        ("cp932", None),
    ):
        try:
            decoded = [name.decode(encoding) for name in names]
        except UnicodeDecodeError:
            continue
        if suits is None or all(map(suits, decoded)):
            return encoding
    return "cp437"


def _reads_western(text: str) -> bool:
    """Whether each word with other than ASCII characters has Latin letters only, ASCII ones too, and usual capitals."""
    for word in re.findall(r"[^\W\d_]+|[^\x00-\x7f]", text):
        if not word.isascii() and not (
            all(unicodedata.name(letter, "").startswith("LATIN ") for letter in word)
            and re.search("[A-Za-z]", word)
            and (word[1:].islower() or word.isupper())
        ):
            return False
    return True
