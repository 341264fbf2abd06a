import struct
import zipfile
import zlib

import pytest

from hfprobe.data.sources.archive_names import UTF8_FLAG, decode_names


def member(raw, *, flag=False, extra=b""):
    """A member as zipfile reads it: names without the flag as cp437."""
    found = zipfile.ZipInfo(raw.decode("utf-8" if flag else "cp437"))
    found.flag_bits, found.extra = UTF8_FLAG * flag, extra
    return found


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (["cat/1.png", "dog/1.png"], None),
        (["犬/1.png", "猫/1.png"], "utf-8"),
        (["犬/1.png", "猫/1.png"], "cp932"),
        (["イヌ/1.png", "ネコ/1.png"], "cp932"),
        (["いぬ/1.png", "dog/1.png"], "cp932"),
        (["表/ソ.png", "能/十.png"], "cp932"),  # second bytes are backslashes
        (["ｲ/1.png", "ﾈｺ/1.png"], "cp932"),
        (["狗/1.png", "猫/1.png"], "gbk"),
        (["苹果/1.png", "香蕉/1.png"], "gbk"),
        (["café/1.png", "thé/1.png"], "cp437"),
        (["Vögel/1.png", "Bären/Nr. 1 (grün).png"], "cp437"),
        (["ÉTÉ/1.png", "hiver/1.png"], "cp437"),
        (["Vögel/1.png", "Bären/1.png"], "cp1252"),
        (["niño/1.png", "año/1.png"], "cp1252"),
        (["à trier/1.png", "10° nord/1.png"], "cp437"),
    ],
)
def test_names_without_an_encoding_are_decoded_by_the_first_one_that_suits_all(names, encoding):
    members = [member(name.encode(encoding or "ascii")) for name in names]
    assert decode_names(members) == (names, encoding)


def test_names_that_state_their_encoding_are_decoded_by_it():
    content = struct.pack("<BI", 1, zlib.crc32(b"?.png")) + "猫.png".encode()
    extra = struct.pack("<HH", 1, 2) + b"ab" + struct.pack("<HH", 0x7075, len(content)) + content
    members = [member("é.png".encode(), flag=True), member(b"?.png", extra=extra), member(b"??.png", extra=extra)]
    assert decode_names(members) == (["é.png", "猫.png", "??.png"], None)


def test_names_of_every_byte_stay_different():
    names, _ = decode_names([member(bytes([number, 65])) for number in range(1, 256)])
    assert len(set(names)) == 255 - 1  # a backslash and a slash
