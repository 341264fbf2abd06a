import io
import json
import re
import tarfile

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.image_folders import NAMES, check_drawn, draw, find, load, numbers, write_images
from hfprobe.api import evaluate, load_images, train
from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources import tar_images
from hfprobe.data.sources.columns import image_paths, label_numbers, paths_below, stored_images
from hfprobe.data.sources.source import load_source
from hfprobe.data.sources.tar_index import Place, Sample, Shard
from hfprobe.data.sources.unlabelled import read_unlabelled
from hfprobe.data.splits import images as splits
from hfprobe.system.errors import InputError


def encode(number, label, kind="PNG"):
    stream = io.BytesIO()
    draw(number, label).save(stream, kind)
    return stream.getvalue()


def write_tar(file, members, mode="w"):
    """A tar file with these contents; an image in place of a content that is None."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, mode) as archive:
        for name, content in members:
            content = encode(1, 1) if content is None else content
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def samples(count, *, first=0, field="cls", label=str):
    """Members of `count` images per class, as webdataset writes them."""
    found = []
    for number in range(first, first + count):
        for kind in range(len(NAMES)):
            found += [
                (f"{number:04}{kind}.png", encode(number, kind)),
                (f"{number:04}{kind}.{field}", label(kind).encode()),
            ]
    return found


def write_shards(folder, *, count=25, shards=3, split="train", **how):
    for shard in range(shards):
        members = samples(count // shards + (shard < count % shards), first=shard * count, **how)
        write_tar(folder / f"{split}-{shard:06}.tar", members)
    return folder


def refused(place, message, **flags):
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        find(place, **flags)


def test_shards_have_the_pixels_labels_and_splits_of_the_same_class_folders(tmp_path):
    for split, first, count in (("train", 0, 20), ("test", 100, 5)):
        folder = write_images(tmp_path / "photos" / split, first=first, count=count)
        for shard in range(2):
            members = []
            for label, name in enumerate(NAMES):
                for file in sorted((folder / name).iterdir())[shard::2]:
                    members += [(f"{name}/{file.name}", file.read_bytes()), (f"{name}/{file.stem}.cls", b"%d" % label)]
            write_tar(tmp_path / "shards" / f"{split}-{shard:06}.tar", members)
    (tmp_path / "shards" / "classes.txt").write_text("cat\ndog\n")
    ours, theirs = load(tmp_path / "shards"), load(tmp_path / "photos")
    assert ours.class_names == theirs.class_names
    for one, other in ((ours.train, theirs.train), (ours.validation, theirs.validation), (ours.test, theirs.test)):
        assert len(one) == len(other)
        numbers(one)
    assert numbers(ours.test) == numbers(theirs.test)
    assert {*map(bytes, ours.test.digests)} == {*map(bytes, theirs.test.digests)}


def test_shards_are_divided_like_other_images_and_nothing_is_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_shards(tmp_path / "shards", shards=7)
    splits = load(tmp_path / "shards")
    check_drawn(splits, count=25)
    assert splits.source == f"local folder {tmp_path}/shards (labels: .cls in train-000000.tar and 6 more files)"
    assert not list(tmp_path.glob("cache/**/*"))


def test_bytes_and_paths_are_those_of_the_members_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_images, "MOST_BYTES", 2000)  # several arrays of each file
    members = samples(4)
    file = write_tar(tmp_path / "a.tar", members)
    rows = load_source(DataArguments(dataset=str(file))).splits["train"]
    images = [(name, content) for name, content in members if name.endswith("png")]
    assert [item["bytes"] for item in stored_images(rows, range(len(rows)))] == [content for _, content in images]
    assert rows.data.column("image").num_chunks > 2
    assert image_paths(rows) == [f"{file}/{name}" for name, _ in images]
    assert paths_below(rows, DataArguments(dataset=str(file))) == [name for name, _ in images]
    assert label_numbers(rows).tolist() == [0, 1] * 4


@settings(max_examples=25, deadline=None)
@given(
    contents=st.lists(st.binary(max_size=40), min_size=1, max_size=8),
    gaps=st.lists(st.integers(0, 30), min_size=8, max_size=8),
    most=st.integers(1, 200),
)
def test_any_places_of_a_file_become_rows(tmp_path_factory, contents, gaps, most):
    file = tmp_path_factory.mktemp("any") / "a.tar"
    whole, places = b"x", []
    for number, (content, gap) in enumerate(zip(contents, gaps, strict=False)):
        whole += b"-" * gap
        places.append(Place(f"{number}.png", len(whole), len(content)))
        whole += content
    file.write_bytes(whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_images, "MOST_BYTES", most)
        rows = tar_images.image_rows([Shard(file, [Sample(place, None, "") for place in places])])
    assert [item["bytes"] for item in stored_images(rows, range(len(rows)))] == contents


@pytest.mark.parametrize(
    ("field", "label", "flags", "names"),
    [
        ("cls", str, {}, ["0", "1"]),
        ("cls", NAMES.__getitem__, {}, NAMES),
        ("cls", lambda kind: f" {10 - kind}\n", {}, ["9", "10"]),
        ("txt", NAMES.__getitem__, {}, NAMES),
        ("json", lambda kind: json.dumps({"label": kind}), {}, ["0", "1"]),
        ("json", lambda kind: json.dumps({"kind": NAMES[kind], "label": 0}), {"label_column": "kind"}, NAMES),
        ("kind.txt", NAMES.__getitem__, {"label_column": "kind.txt"}, NAMES),
    ],
)
def test_labels_are_class_numbers_or_names(tmp_path, field, label, flags, names):
    images = find(write_shards(tmp_path / "shards", field=field, label=label), **flags)
    assert images.class_names == names
    assert [sum(counts) for counts in images.counts().values()] == [32, 8, 10]


def test_a_missing_label_leaves_the_image_out(tmp_path):
    extra = [
        (f"9{number}.png", None) if kind == 0 else (f"9{number}.cls", b"-1") for number in range(3) for kind in range(2)
    ]
    images = find(write_tar(tmp_path / "a.tar", samples(10) + extra))
    assert sum(map(sum, images.counts().values())) == 20
    assert images.class_names == ["0", "1"]


@pytest.mark.parametrize(("name", "label"), [("classes.txt", str), ("classnames.txt", NAMES[::-1].__getitem__)])
def test_a_file_of_class_names_gives_their_order(tmp_path, name, label):
    write_shards(tmp_path, label=label)
    (tmp_path / name).write_text("dog\ncat\n")
    images = find(tmp_path)
    assert images.class_names == ["dog", "cat"]
    assert images.source.endswith(f"; classes in {name})")


@pytest.mark.parametrize("layout", ["{split}-{shard:06}.tar", "{split}/{shard}.tar", "pets-{split}-{shard}.tar"])
def test_splits_are_named_by_files_or_folders(tmp_path, layout):
    for split, first, count in (("train", 0, 10), ("val", 100, 3), ("test", 200, 4)):
        for shard in range(2):
            write_tar(tmp_path / layout.format(split=split, shard=shard), samples(count, first=first + count * shard))
    splits = load(tmp_path)
    assert [numbers(part) for part in (splits.train, splits.validation, splits.test)] == [
        {*range(20)},
        {*range(100, 106)},
        {*range(200, 208)},
    ]


def test_a_test_split_without_labels_is_left_out_and_can_be_read_unlabelled(tmp_path):
    write_shards(tmp_path)
    write_tar(tmp_path / "test-0.tar", [(f"{number}.png", encode(number, 1)) for number in range(3)])
    images = find(tmp_path)
    assert images.left_out["split without labels"] == ["test (3 images)"]
    assert len(images.parts["test"]) == 10
    assert len(images.drawn.unlabelled["test"]) == 3
    assert len(read_unlabelled(str(tmp_path))) == 53


def test_fields_of_other_kinds_and_hidden_files_are_ignored(tmp_path):
    members = []
    for name, content in samples(10):
        members += [(f"./._{name}", b"x"), (f"./{name}", content), (f"./{name[:-4]}.{name[-3:]}.npy", b"x")]
    assert find(write_tar(tmp_path / "a.tar", members)).class_names == ["0", "1"]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz"])
def test_a_tar_file_of_class_folders_is_read_like_a_zip_file(tmp_path, ending):
    members = [(f"pets/{name}/x.{n:03}.png", encode(n, kind)) for kind, name in enumerate(NAMES) for n in range(25)]
    members += [("pets/README.txt", b"Pets."), ("pets/info.json", b"{}")]
    file = write_tar(tmp_path / f"pets{ending}", members, "w" if ending == ".tar" else "w:gz")
    splits = load(file)
    check_drawn(splits, count=25)
    assert splits.class_names == NAMES
    rows = load_source(DataArguments(dataset=str(file))).splits["train"]
    assert paths_below(rows, DataArguments(dataset=str(file)))[0] == "pets/cat/x.000.png"


def test_a_link_out_of_a_tar_file_is_refused(tmp_path):
    file = write_tar(tmp_path / "pets.tar", [("cat/1.png", None), ("dog/1.png", None)])
    with tarfile.open(file, "a") as archive:
        member = tarfile.TarInfo("cat/2.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(InputError, match=r"^'.*pets.tar' cannot be unpacked: .*Pass an intact tar file\.$"):
        find(file)


@pytest.mark.parametrize(
    ("at", "last"), [(-1000, "00071.png"), (-500, "00071.png"), (0, "00071.cls"), (512, "00071.cls")]
)
def test_a_truncated_shard_is_refused_with_its_name_and_member(tmp_path, at, last):
    """Cut in the image, in the header of its label, in the label, and before the blocks that end the file."""
    file = write_shards(tmp_path, count=8, shards=1) / "train-000000.tar"
    with tarfile.open(file) as archive:
        start = archive.getmembers()[-1].offset_data
    file.write_bytes(file.read_bytes()[: start + at])
    refused(
        tmp_path,
        f"'{file}' is truncated, damaged or no uncompressed tar file at or after its member '{last}': unexpected end "
        "of data. Copy or write it again.",
    )


def test_a_damaged_header_is_refused(tmp_path):
    file = write_tar(tmp_path / "a.tar", samples(4))
    content = bytearray(file.read_bytes())
    with tarfile.open(file) as archive:
        third = archive.getmembers()[2]
    content[third.offset : third.offset + 10] = b"\xff" * 10
    file.write_bytes(content)
    refused(
        file,
        f"'{file}' is truncated, damaged or no uncompressed tar file at or after its member '00000.cls': bad header. "
        "Copy or write it again.",
    )


def test_a_sample_without_a_label_is_refused(tmp_path):
    file = write_tar(tmp_path / "a.tar", [*samples(4), ("x.png", None)])
    refused(
        file,
        f"'{file}' has the image 'x.png' without a label, and other images have one. Write its label beside it, or "
        "remove it.",
    )


def test_a_sample_without_an_image_is_refused(tmp_path):
    file = write_tar(tmp_path / "a.tar", [*samples(4), ("x.cls", b"0")])
    refused(
        file,
        f"'{file}' has a sample with the label 'x.cls' and without an image. The files of a sample must lie one after "
        "another and have one name with different endings; write the shard again.",
    )


def test_two_images_in_one_sample_need_a_flag(tmp_path):
    members = []
    for name, content in samples(10):
        members += [(name, content)] + [(name[:-4] + ".seg.png", b"x")] * name.endswith("png")
    file = write_tar(tmp_path / "a.tar", members)
    refused(
        file,
        f"'{file}' has two images in one sample, 00000.png and 00000.seg.png; allowed: one. Pass --image_column png or "
        "--image_column seg.png.",
    )
    assert find(file, image_column="png").class_names == ["0", "1"]


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    file = write_tar(tmp_path / "a.tar", [*samples(4), ("x.png", None), ("x.png", None), ("x.cls", b"1")])
    refused(file, f"'{file}' holds 'x.png' twice in one sample. Write the shard again.")


def test_labels_of_two_kinds_are_refused(tmp_path):
    first = write_tar(tmp_path / "train-0.tar", samples(4))
    other = write_tar(tmp_path / "train-1.tar", samples(4, first=4, field="txt"))
    refused(
        tmp_path,
        f"Labels are of two kinds: '00000.png' in '{first}' has .cls, and '00040.png' in '{other}' has .txt; allowed: "
        "one of them in all samples. Write the shards again.",
    )
    write_tar(other, samples(4, first=4, label=NAMES.__getitem__))
    refused(
        tmp_path,
        f"Labels are of two kinds: those of '{first}' are numbers, those of '{other}' are names; allowed: one kind in "
        "all shards. Write the shards again.",
    )


@pytest.mark.parametrize(
    ("label", "classes", "shown", "allowed"),
    [
        (str, "cat\n", "1", "0 to 0, the lines of '{file}' from 0"),
        (NAMES.__getitem__, "cat\ncow\n", "dog", "the lines of '{file}', cat, cow"),
    ],
)
def test_a_label_that_is_not_in_the_file_of_class_names_is_refused(tmp_path, label, classes, shown, allowed):
    (tmp_path / "classes.txt").write_text(classes)
    file = write_tar(tmp_path / "train-0.tar", samples(4, label=label))
    refused(
        tmp_path,
        f"'00001.png' in '{file}' has the label '{shown}'; allowed: {allowed.format(file=tmp_path / 'classes.txt')}. "
        "Correct the label or the file.",
    )


def test_a_repeated_class_name_is_refused(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "classes.txt").write_text("crane\nmaillot\ncrane\n")
    refused(
        tmp_path,
        f"Line 3 of '{tmp_path}/classes.txt' repeats 'crane' of line 1; allowed: one class per line, each once. "
        "Correct it.",
    )


def test_a_label_that_is_not_text_is_refused(tmp_path):
    members = [(name, b"\x80\x04K\x00." if name.endswith("cls") else image) for name, image in samples(2)]
    file = write_tar(tmp_path / "a.tar", members)
    refused(
        file,
        f"'00000.cls' in '{file}' is not UTF-8 text; allowed: a class number or name. Write the shard again.",
    )


def test_json_without_one_value_is_refused(tmp_path):
    file = write_tar(tmp_path / "a.tar", samples(2, field="json", label=lambda kind: json.dumps({"label": [kind]})))
    refused(
        file,
        f"'00000.json' in '{file}' has the label [0] in 'label'; allowed: a class number or name. Pass another key as "
        "--label_column.",
    )
    file = write_tar(tmp_path / "b.tar", samples(2, field="json", label=lambda kind: "{"))
    with pytest.raises(InputError, match=r"^'00000.json' in '.*b.tar' is not JSON: .* Write the shard again\.$"):
        find(file)


def test_an_empty_tar_file_is_refused(tmp_path):
    file = write_tar(tmp_path / "train-0.tar", [])
    for place in (file, tmp_path):
        refused(place, f"'{file}' holds no files such as 1.jpg and 1.cls. Remove it, or write it again.")
    file.write_bytes(b"")
    refused(
        file,
        f"'{file}' is truncated, damaged or no uncompressed tar file: empty file. Copy or write it again.",
    )


def test_shards_without_labels_and_compressed_shards_are_refused(tmp_path):
    write_tar(tmp_path / "train-0.tar", [("cat/1.png", None), ("dog/1.png", None)])
    with pytest.raises(InputError, match=r"hold 2 images and no labels. .* if they hold class folders, unpack them\.$"):
        find(tmp_path)
    file = write_tar(tmp_path / "train-1.tar.gz", samples(4), "w:gz")
    refused(
        tmp_path,
        f"'{file}' is compressed, and images of shards are read by their places. Decompress it (gunzip), or pass it "
        "alone as --dataset if it holds class folders.",
    )


def test_one_compressed_shard_is_refused(tmp_path):
    file = write_tar(tmp_path / "train-0.tgz", samples(4), "w:gz")
    with pytest.raises(
        InputError, match=r"8 images in no class folder.* If it holds samples .*, decompress it \(gunzip"
    ):
        find(file)


@pytest.mark.parametrize("flag", ["split_column", "group_column"])
def test_flags_of_tables_are_refused(tmp_path, flag):
    with pytest.raises(InputError, match=rf"^--{flag} applies to tables, and '.*' holds tar files\. Leave it out\."):
        find(write_shards(tmp_path), **{flag: "x"})


def test_names_outside_the_file_are_only_names(tmp_path):
    members = [(f"../{name}", content) for name, content in samples(10)]
    images = find(write_tar(tmp_path / "a.tar", members))
    assert sum(map(sum, images.counts().values())) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]


def test_corrected_labels_name_images_of_shards(tmp_path):
    write_shards(tmp_path / "shards", shards=2)
    (tmp_path / "labels.csv").write_text("file,label\ntrain-000000.tar/00000.png,1\ntrain-000001.tar/00251.png,\n")
    images = find(tmp_path / "shards", labels=str(tmp_path / "labels.csv"))
    before = find(tmp_path / "shards")
    assert np.sum(list(before.counts().values()), axis=0).tolist() == [25, 25]
    assert np.sum(list(images.counts().values()), axis=0).tolist() == [24, 25]


def test_a_shard_that_was_replaced_is_decoded_again(tmp_path):
    file = write_tar(tmp_path / "a.tar", samples(10))
    before = load(file)
    file.unlink()
    write_tar(file, samples(10, first=50))
    after = load(file)
    assert numbers(before.train).isdisjoint(numbers(after.train))


def test_a_model_trains_on_shards_and_is_evaluated_on_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "shards", count=30, label=NAMES.__getitem__)
    write_tar(tmp_path / "shards" / "test-000000.tar", samples(10, first=100, label=NAMES.__getitem__))
    images = load_images("shards", seed=1)
    model = train("cnn", images, epochs=1, batch_size=8, use_cpu=True, report_to="none", disable_tqdm=True)
    evaluation = evaluate(model)
    assert evaluation.provenance.source == "local folder shards (labels: .cls in test-000000.tar and 3 more files)"
    assert len(evaluation.labels) == 20


def test_all_splits_of_shards_are_one_part_where_a_model_is_evaluated_on_all_images(tmp_path):
    write_shards(tmp_path, count=6, shards=2)
    write_tar(tmp_path / "test-0.tar", samples(4, first=100))
    images = splits.load_images(DataArguments(dataset=str(tmp_path)), seed=0, whole=True)
    rows = images.parts["all"]
    found = [encode(number, kind) for number in (*range(3), *range(6, 9), *range(100, 104)) for kind in range(2)]
    assert sorted(item["bytes"] for item in stored_images(rows, range(len(rows)))) == sorted(found)
