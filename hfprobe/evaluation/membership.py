"""Whether the images of an evaluation are those that the training of the model kept apart."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hfprobe.data.arguments import IDENTITY, is_moved, same_dataset
from hfprobe.data.membership import add_up
from hfprobe.data.splits import Images
from hfprobe.system.errors import InputError, shorten

SEEN = ("train", "validation")
REMEDY = "pass a folder of images that it has not seen: --dataset <folder> --split all"


def find_changes(run: dict[str, Any], images: Images, *, split: str) -> str:
    """What has changed in a split since the training of a model: a sentence; "" for nothing.

    Of a dataset other than the model's own nothing is known, unless it consists of parts of it.

    Args:
        run: what the config of the model says of its training.
        split: the part of `images` that is to be evaluated.

    Raises:
        InputError: there are images among them that the model was trained or selected on, or there may be.
    """
    before, now = run.get("membership"), images.membership
    if not before:  # not a model of a run
        return ""
    was, found = before.get(split, before["test"]), now[split]
    if found["digest"] == was["digest"]:
        return ""
    dataset, own = images.arguments.dataset, run.get("dataset", "")
    is_own = split != "all" and (same_dataset(dataset, own) or is_moved(dataset, own))
    if is_own and found["own"] != was["own"]:
        raise InputError(
            f"The {split} images of '{shorten(dataset)}' were {_origin(was)} when this model was trained, and today they "
            f"are {_origin(found)}, so some of them may have been training images. Restore the dataset, or {REMEDY}."
        )
    total = add_up(now.values())
    if split != "all" and total == add_up(before.values()):
        told = [f"--{name} {run[name]}" for name in IDENTITY if name in run]
        raise InputError(
            f"The images of '{shorten(dataset)}' are divided in another way than when this model was trained, so some "
            f"of the {split} images may have been training images. Divide them as then, "
            f"with seed {' '.join([str(run.get('split_seed')), *told])}, or {REMEDY}."
        )
    for parts in (parts for count in range(1, 4) for parts in combinations(before, count) if set(parts) & set(SEEN)):
        if add_up(before[name] for name in parts) in (total, found["digest"]):
            raise InputError(
                f"The images of '{shorten(dataset)}' are those that this model was trained with ({', '.join(parts)}). "
                f"To evaluate it, {REMEDY}."
            )
    if not is_own:
        return ""
    if not found["own"]:
        raise InputError(
            f"The images of '{shorten(dataset)}' have changed since this model was trained. Its {split} images were drawn "
            f"from them, so some of today's {split} images may have been training images. Restore the images, or "
            f"{REMEDY}."
        )
    difference = f"{was['images']:,} images then, {found['images']:,} now"
    if was["images"] == found["images"]:
        difference += ", with other files or labels"
    others = [name for name in SEEN if name != split]
    if add_up(before[name] for name in others) != add_up(now[name] for name in others):
        raise InputError(
            f"The training images of '{shorten(dataset)}' have changed since this model was trained, and so has its "
            f"{split} split ({difference}): training images may have been moved into it. Restore the images, or "
            f"{REMEDY}."
        )
    return f"The {split} split has changed since training: {difference}."


def _origin(part: dict[str, Any]) -> str:
    origin = "a split of the dataset" if part["own"] else "drawn from its training images"
    return f"{origin} ({part['images']:,} images)"
