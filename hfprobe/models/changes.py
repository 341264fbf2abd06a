"""Whether the images of an evaluation are those that the training of the model kept apart."""

from __future__ import annotations

from itertools import combinations

from hfprobe.data.arguments import is_moved, same_dataset
from hfprobe.data.splits.images import Images
from hfprobe.data.splits.membership import add_up
from hfprobe.data.splits.parts import Membership
from hfprobe.models.passport import Passport
from hfprobe.system.errors import InputError, shorten

SEEN = ("train", "validation")
REMEDY = "pass a folder of images that it has not seen: --dataset <folder> --split all"


def check_not_solved_on(passport: Passport | None, images: Images, *, split: str) -> None:
    """Raise InputError for the validation images of a model that was solved on train + validation, or for a copy."""
    if passport is None or not passport.refit or split not in SEEN:
        return
    before, now = passport.membership or {}, images.membership
    copied = split in before and split in now and before[split].digest == now[split].digest
    if copied or _is_own(passport, images.arguments.dataset, split=split):
        raise InputError(
            f"The {split} images are among those that this model was solved on (--refit): its accuracy on them says "
            f"nothing about others. Evaluate it on test, or {REMEDY}."
        )


def find_changes(passport: Passport | None, images: Images, *, split: str) -> str:
    """What has changed in a split since the training of a model: a sentence; "" for nothing.

    Of a dataset other than the model's own nothing is known, unless it consists of parts of it.

    Args:
        passport: of the model.
        split: the part of `images` that is to be evaluated.

    Raises:
        InputError: there are images among them that the model was trained or selected on, or there may be.
    """
    if passport is None or passport.membership is None:  # not a model of a run
        return ""
    before, now = passport.membership, images.membership
    was, found = before.get(split, before["test"]), now[split]
    same = found.digest == was.digest
    if same and found.sample == was.sample:
        return ""
    dataset = images.arguments.dataset
    named = f"images of '{shorten(dataset)}'"
    is_own = _is_own(passport, dataset, split=split)
    if is_own and found.own != was.own:
        raise InputError(
            f"The {split} {named} were {_origin(was)} when this model was trained, and today they are "
            f"{_origin(found)}, so some of them may have been training images. Restore the dataset, or {REMEDY}."
        )
    # Other images may have the same names and sizes; their content says so. The default dataset has no sample.
    known = {entry for part in before.values() for entry in part.sample}
    is_known = not known or any(known & set(part.sample) for part in now.values())
    if (is_own or is_known) and not same:
        _check_parts(passport, before, images, split=split, named=named)
    if not is_own:
        seen = [name for name in SEEN if name != split or passport.refit]
        _check_not_seen(before, found, seen=seen, split=split, dataset=dataset)
        return ""
    if not found.own:
        raise InputError(
            f"The {named} have changed since this model was trained. Its {split} images were drawn from them, so some "
            f"of today's {split} images may have been training images. Restore the images, or {REMEDY}."
        )
    difference = f"{was.images:,} images then, {found.images:,} now"
    if was.images == found.images:
        difference += ", with other files or labels"
    others = [name for name in SEEN if name != split]
    if add_up(before[name] for name in others) != add_up(now[name] for name in others):
        raise InputError(
            f"The training {named} have changed since this model was trained, and so has its {split} split "
            f"({difference}): training images may have been moved into it. Restore the images, or {REMEDY}."
        )
    return f"The {split} split has changed since training: {difference}."


def _check_parts(passport: Passport, before: dict[str, Membership], images: Images, *, split: str, named: str) -> None:
    """Raise InputError for images that are those of the training, or some parts of them, divided in another way."""
    now = images.membership
    total = add_up(now.values())
    if split != "all" and total == add_up(before.values()):
        settings = (f"--{name} {value}" for name, value in passport.images.items())
        how = " ".join([f"seed {passport.split_seed}", *settings])
        raise InputError(
            f"The {named} are divided in another way than when this model was trained, so some of the {split} images "
            f"may have been training images. Divide them as then, with {how}, or {REMEDY}."
        )
    for parts in (parts for count in range(1, 4) for parts in combinations(before, count) if set(parts) & set(SEEN)):
        if add_up(before[name] for name in parts) in (total, now[split].digest):
            raise InputError(
                f"The {named} are those of this model's training ({', '.join(parts)}). To evaluate it, {REMEDY}."
            )


def _check_not_seen(
    before: dict[str, Membership], found: Membership, *, seen: list[str], split: str, dataset: str
) -> None:
    """Raise InputError if images of another dataset are among those that the model was trained or selected on."""
    shared = {name: set(before[name].sample) & set(found.sample) for name in seen}
    count = len(set().union(*shared.values()))
    if count:
        parts = ", ".join(name for name, entries in shared.items() if entries)
        raise InputError(
            f"At least {count:,} of the {found.images:,} {'' if split == 'all' else f'{split} '}images of "
            f"'{shorten(dataset)}' are those of this model's training ({parts}). To evaluate it, {REMEDY}."
        )


def _is_own(passport: Passport, dataset: str, *, split: str) -> bool:
    """Whether a dataset is the one that a model was trained on, perhaps in another place."""
    return split != "all" and (same_dataset(dataset, passport.dataset) or is_moved(dataset, passport.dataset))


def _origin(part: Membership) -> str:
    origin = "a split of the dataset" if part.own else "drawn from its training images"
    return f"{origin} ({part.images:,} images)"
