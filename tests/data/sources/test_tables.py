"""CSV files that name images, and parquet files that hold them."""

import re

import pandas as pd
import pytest

from helpers.image_folders import NAMES, check_drawn, draw, load, numbers, write_images
from hfprobe.data.sources.tables import read_table
from hfprobe.system.errors import InputError


@pytest.mark.parametrize(
    ("name", "separator", "image", "label"),
    [  # each pair of values once
        ("metadata.csv", ",", "file_name", "label"),
        ("labels.csv", ";", "file_name", "label"),
        ("labels.csv", "\t", "file_name", "label"),
        ("labels.csv", ",", "Image", "Class"),
        ("metadata.csv", ";", "Image", "Class"),
        ("metadata.csv", "\t", "Image", "Class"),
        ("labels.csv", ",", "path", "category"),
        ("metadata.csv", ";", "path", "category"),
        ("labels.csv", "\t", "path", "category"),
    ],
)
def test_a_csv_file_names_images_and_classes(tmp_path, name, separator, image, label):
    write_images(tmp_path / "images", count=25)
    rows = [(f"images/{name}/{number:03}.png", name) for name in NAMES for number in range(25)]
    pd.DataFrame(rows, columns=[image, label]).to_csv(tmp_path / name, sep=separator, index=False, encoding="utf-8-sig")
    for place in (tmp_path, tmp_path / name):
        check_drawn(load(place), count=25)


def test_a_csv_file_with_columns_of_other_names_and_a_split_column(tmp_path):
    write_images(tmp_path, count=10)
    rows = [
        (f"{name}/{number:03}.png", name, "train" if number < 8 else "TEST") for name in NAMES for number in range(10)
    ]
    pd.DataFrame(rows, columns=["scan", "diagnosis", "split"]).to_csv(tmp_path / "table.csv", index=False)
    with pytest.raises(
        InputError, match=r"has no image column; its columns: scan, diagnosis, split. Pass one of them as"
    ):
        load(tmp_path / "table.csv")
    splits = load(tmp_path / "table.csv", image_column="scan", label_column="diagnosis")
    assert numbers(splits.test) == {8, 9}
    assert (len(splits.train), len(splits.validation)) == (13, 3)
    with pytest.raises(InputError, match=re.escape("has no column 'scam'; its columns: scan, diagnosis, split.")):
        load(tmp_path / "table.csv", image_column="scam", label_column="diagnosis")


def test_one_csv_file_per_split(tmp_path):
    write_images(tmp_path, count=10)
    for split, chosen in (("train", range(7)), ("test", range(7, 10))):
        rows = [(f"{name}/{number:03}.png", name) for name in NAMES for number in chosen]
        pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / f"{split}.csv", index=False)
    splits = load(tmp_path)
    assert numbers(splits.test) == {7, 8, 9}
    assert len(splits.train) + len(splits.validation) == 14


def test_numbers_as_classes_of_a_csv_file_are_in_their_order(tmp_path):
    write_images(tmp_path, count=5, names=["2", "10"])
    rows = [(f"{name}/{number:03}.png", name) for name in ("10", "2") for number in range(5)]
    pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / "labels.csv", index=False)
    assert load(tmp_path / "labels.csv").class_names == ["2", "10"]


def test_missing_files_of_a_csv_file_are_counted_and_named(tmp_path):
    write_images(tmp_path, count=3)
    rows = [(f"{name}/{number:03}.png", name) for name in NAMES for number in range(6)]
    pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / "labels.csv", index=False)
    expected = (
        f"'{tmp_path}/labels.csv' names 6 of 12 images that do not exist in '{tmp_path}': 'cat/003.png', "
        "'cat/004.png', 'cat/005.png', 'dog/003.png', 'dog/004.png' and 1 more. Correct column 'file', or remove "
        "these rows."
    )
    with pytest.raises(InputError, match=f"^{re.escape(expected)}$"):
        load(tmp_path)


def parquet_rows(*, as_bytes, count=10, first=0):
    content = []
    for label, name in enumerate(NAMES):
        for number in range(first, first + count):
            file = f"{name}-{number}.png"
            draw(number, label).save(as_bytes["folder"] / file)
            data = (as_bytes["folder"] / file).read_bytes()
            image = data if as_bytes["how"] == "bytes" else {"bytes": data, "path": file}
            content.append({"image": image, "label": name})
    return pd.DataFrame(content)


@pytest.mark.parametrize("how", ["bytes", "struct"])
def test_parquet_files_of_pandas_with_the_bytes_of_images(tmp_path, how):
    (tmp_path / "made").mkdir()
    as_bytes = {"folder": tmp_path / "made", "how": how}
    (tmp_path / "one").mkdir()
    parquet_rows(as_bytes=as_bytes, count=25).to_parquet(tmp_path / "one" / "birds.parquet")
    for place in (tmp_path / "one", tmp_path / "one" / "birds.parquet"):
        check_drawn(load(place), count=25)
    (tmp_path / "several" / "data" / "test").mkdir(parents=True)
    parquet_rows(as_bytes=as_bytes).to_parquet(tmp_path / "several" / "data" / "train-0.parquet")
    parquet_rows(as_bytes=as_bytes, first=10).to_parquet(tmp_path / "several" / "data" / "train-1.parquet")
    parquet_rows(as_bytes=as_bytes, first=50).to_parquet(tmp_path / "several" / "data" / "test" / "0.parquet")
    splits = load(tmp_path / "several")
    assert len(splits.train) + len(splits.validation) == 40
    assert numbers(splits.test) == set(range(50, 60))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_flags_name_files_of_splits(tmp_path, kind):
    write_images(tmp_path, count=10)
    for name, chosen in (("lab", range(8)), ("field", range(8, 10))):
        rows = [(f"{label}/{number:03}.png", label) for label in NAMES for number in chosen]
        if kind == "csv":
            pd.DataFrame(rows, columns=["file", "label"]).to_csv(tmp_path / f"{name}.csv", index=False)
        else:
            table = pd.DataFrame([((tmp_path / path).read_bytes(), label) for path, label in rows])
            table.set_axis(["image", "label"], axis=1).to_parquet(tmp_path / f"{name}.parquet")
    splits = load(tmp_path, train_split="lab", test_split="field")
    assert numbers(splits.test) == {8, 9}
    assert len(splits.train) + len(splits.validation) == 16
    with pytest.raises(InputError, match="--test_split is 'filed'"):
        load(tmp_path / f"lab.{kind}", test_split="filed")


@pytest.mark.parametrize("content", [b"", b"caf\xe9;x\n", b"note,who\nhello,me\n"])
@pytest.mark.parametrize("flags", [{}, {"label_column": "species"}])
def test_a_csv_file_of_another_kind_does_not_refuse_the_class_folders_beside_it(tmp_path, content, flags):
    write_images(tmp_path, count=25)
    (tmp_path / "notes.csv").write_bytes(content)
    check_drawn(load(tmp_path, **flags), count=25)


def test_test_rows_without_labels_are_left_out(tmp_path):
    write_images(tmp_path / "images", count=25)
    rows = [(f"images/{name}/{number:03}.png", name, "train") for name in NAMES for number in range(25)]
    write_images(tmp_path / "unknown", names=["new"], count=3)
    rows += [(f"unknown/new/{number:03}.png", "", "test") for number in range(3)]
    pd.DataFrame(rows, columns=["file", "label", "split"]).to_csv(tmp_path / "table.csv", index=False)
    splits = load(tmp_path / "table.csv")
    check_drawn(splits, count=25)
    assert splits.summary.left_out == {"split without labels": ["test (3 images)"]}


def test_a_cell_that_is_no_path_and_a_comma_at_the_end_of_rows(tmp_path):
    write_images(tmp_path, count=25)
    lines = [f"{name}/{number:03}.png,{name}," for name in NAMES for number in range(25)]
    (tmp_path / "table.csv").write_text("\n".join(["file,label", *lines]))
    check_drawn(load(tmp_path / "table.csv"), count=25)
    (tmp_path / "table.csv").write_text("\n".join(["file,label", *lines, "x" * 5000 + ",cat"]))
    with pytest.raises(InputError, match="names 1 of 51 images that do not exist"):
        load(tmp_path / "table.csv")


def test_images_without_a_value_in_the_group_column_are_groups_of_their_own(tmp_path):
    write_images(tmp_path, count=30)
    rows = [
        (f"{name}/{number:03}.png", name, "" if number < 15 else number // 3) for name in NAMES for number in range(30)
    ]
    pd.DataFrame(rows, columns=["file", "label", "visit"]).to_csv(tmp_path / "table.csv", index=False)
    splits = load(tmp_path / "table.csv", group_column="visit")
    assert all(set(range(15)) & numbers(part) for part in (splits.train, splits.validation, splits.test))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize(
    "text",
    [
        "file,label\na.png,Käfer\nb.png,dog\n",
        "file;label\na.png;Käfer\nb.png;dog\n",
        "file\tlabel\r\na.png\tKäfer\r\nb.png\tdog\r\n",
        "file,label\ra.png,Käfer\rb.png,dog",
        "sep=;\nfile;label\na.png;Käfer\nb.png;dog",
        "sep=|\nfile|label\na.png|Käfer\nb.png|dog",
        "\n;;\nfile;label;\na.png;Käfer;\n\n;;\nb.png;dog",
        "file,label,,\na.png,Käfer,,,,\nb.png,dog\n,,,\n",
        " file , label\n a.png,  Käfer \n b.png, dog",
        '"file", "label"\n"a.png", "Käfer"\n"b.png","dog"\n',
        ",file,label\n0,a.png,Käfer\n1,b.png,dog\n",
        'file,label,note\na.png,Käfer\nb.png,dog,"two\nlines"\n',
    ],
)
def test_tables_are_read_as_excel_writes_them(tmp_path, text, encoding):
    (tmp_path / "labels.csv").write_bytes(text.encode(encoding))
    table = read_table(tmp_path / "labels.csv")
    assert table.columns["file"] == ["a.png", "b.png"]
    assert table.columns["label"] == ["Käfer", "dog"]
    note = "" if "utf-8" in encoding else "read as Windows-1252" if encoding == "cp1252" else "read as UTF-16"
    assert table.note == note


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "labels.csv",
            b"file,label\na.png,cat\n\nb.png,cat, grey\n",
            "Line 4 of '{file}' has 3 values, and the header has 2 columns: b.png,cat,grey. Put a value that contains "
            "a comma in double quotes.",
        ),
        (
            "labels.csv",
            b"file;label\na.png;cat\nb.png;cat;grey\n",
            "Line 3 of '{file}' has 3 values, and the header has 2 columns: b.png;cat;grey. Put a value that contains "
            "a semicolon in double quotes.",
        ),
        (
            "labels.csv",
            b'file,label\na.png,cat\nb.png,"cat\nc.png,dog\n',
            "Line 3 of '{file}' cannot be read: unexpected end of data. Close each double quote that a value begins "
            "with.",
        ),
        ("labels.csv", b"", "'{file}' is empty. It needs a header and one row per image."),
        ("labels.csv", b"file,label\n\n", "'{file}' has a header and no rows. Add one row per image."),
        (
            "labels.csv",
            b"file,label\n\x81\x8d.png,cat\n",
            "'{file}' is no text in UTF-8, UTF-16 or Windows-1252. Save it as CSV in UTF-8.",
        ),
        (
            "labels.jsonl",
            b'{"file_name": "a.png", "label": "cat"}\n{"file_name"\n',
            "Line 2 of '{file}' is not JSON: Expecting ':' delimiter: line 1 column 13 (char 12). Write one object per "
            'line, such as {{"file_name": "1.jpg", "label": "cat"}}.',
        ),
        (
            "labels.jsonl",
            b'["a.png", "cat"]\n',
            'Line 1 of \'{file}\' is ["a.png", "cat"]; allowed: an object such as '
            '{{"file_name": "1.jpg", "label": "cat"}}.',
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_with_the_line(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_table(file)
    assert str(raised.value) == message.format(file=file)
