import pytest

from hfprobe.data.arguments import DataArguments
from hfprobe.data.sources.split_names import look_like_splits, standard_name, usual_meaning

MEANINGS = {
    "train": [
        *("train", "Training", "training_set", "seg_train", "train_images", "train_data", "TrainingSet", "train2017"),
        *("TRAIN-SET", "trainset", "train (1)", "imagesTrain", "train.split"),
    ],
    "validation": ["val", "valid", "dev", "val_set", "val2017", "ValImages", "devset", "validation-data"],
    "test": ["test", "Testing", "test_set", "seg_test", "TestImages", "test2017", "photos-test"],
    None: [
        *("test_tube", "trainval", "train_test", "trains", "steam train", "dev_kit", "latest", "images", "2017", "set"),
        *("trainer", "contest", "validity", "unseen", "flowers_train", ""),
    ],
}


@pytest.mark.parametrize(("name", "meaning"), [(name, means) for means, names in MEANINGS.items() for name in names])
def test_a_name_means_a_split_if_its_other_words_are_those_of_any_dataset(name, meaning):
    assert usual_meaning(name) == meaning


def test_flags_replace_the_usual_names_of_a_split():
    data = DataArguments(dataset="x", train_split="lab", test_split="train")
    names = ["lab", "train", "train_set", "test", "val_set"]
    assert [standard_name(name, data) for name in names] == ["train", "test", None, None, "validation"]


@pytest.mark.parametrize(
    ("names", "alike", "expected"),
    [
        (["flowers_train", "flowers_test"], False, True),
        (["trainA", "testA", "trainB", "testB"], False, True),
        (["ILSVRC_train", "ILSVRC_val", "ILSVRC_extra"], False, True),
        (["Trainingsdaten", "Testdaten"], False, True),
        (["trainval", "holdout"], False, True),
        (["flowers_train", "flowers_rest"], True, True),
        (["flowers_train", "flowers_rest"], False, False),
        (["test_positive", "test_negative"], False, False),
        (["steam train", "electric train", "bus"], False, False),
        (["test_tube", "beaker"], False, False),
        (["flowers_train", "flowers_test", "roses", "tulips"], True, False),
        (["lab", "field"], True, False),
    ],
)
def test_classes_that_are_named_like_splits(names, alike, expected):
    assert look_like_splits(names, alike=alike) == expected
