"""What the name of a file says: which frame it belongs to by name, time or number, and what in it says nothing."""

import re
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from das3r_ns.video.image_folder import file_order

ENDINGS = frozenset((
    "jpg", "jpeg", "jfif", "png", "bmp", "tif", "tiff", "webp", "gif", "ppm", "pgm", "pbm", "pnm", "exr", "heic",
    "heif", "avif", "dng", "npy", "npz", "json", "txt",
))  # fmt: skip
"""Endings that say nothing about the frame. Others are part of the name: `t_0.25` has no ending."""


ROLE_WORDS = frozenset((
    "mask", "masks", "seg", "segs", "segmentation", "matte", "alpha", "label", "labels", "dynamic", "dyn", "moving",
    "object", "objects", "obj", "instance", "instances", "semantic", "annotation", "gt", "pred", "out", "output",
    "sam", "sam2",
))  # fmt: skip
"""Words that a mask's name may have beside that of its frame."""


MIN_TIME_DIGITS = 9
"""Digits of a whole number from which it may be a time stamp: seconds since 1970 have ten."""


def bare_name(path: str) -> str:
    """Name of a file without folders and endings (`a/00003.jpg.png` is `00003`), in one case and one Unicode form."""
    name = unicodedata.normalize("NFKC", path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]).casefold()
    while "." in name.lstrip("."):
        stem, ending = name.rsplit(".", 1)
        if ending not in ENDINGS:
            break
        name = stem
    return name


def without_role(name: str) -> str:
    """A bare name without words that say what kind of file it is, and without the padding of its numbers."""
    words = [word for word in re.split(r"[\s._\-]+", name) if word and word not in ROLE_WORDS]
    return "_".join(re.sub(r"\d+", lambda digits: str(int(digits[0])), word) for word in words)


def last_number(name: str) -> int | None:
    """The last whole number in a bare name, which is the one that counts."""
    found = re.findall(r"\d+", name)
    return int(found[-1]) if found else None


def time_in_name(name: str) -> float | None:
    """The time that a bare name says, in its own units, if it ends in a decimal number or in a long whole one."""
    found = re.search(r"(\d+\.\d+|\d{%d,})s?$" % MIN_TIME_DIGITS, name)  # noqa: UP031  (braces of the expression)
    return float(found[1]) if found else None


def sorted_by_number(names: Sequence[str]) -> list[int]:
    """Places in `names` in the order of their numbers."""
    return file_order([bare_name(name) for name in names])


def places_by_key(names: Sequence[str], key: Callable[[str], str]) -> dict[str, int] | None:
    """Place of each name by its key; None if two have the same."""
    found = {key(name): i for i, name in enumerate(names)}
    return found if len(found) == len(names) else None


def normalized_name(name: str) -> str:
    return unicodedata.normalize("NFKC", name.replace("\\", "/").rsplit("/", 1)[-1]).casefold()


def without_one_ending(name: str) -> str:
    return normalized_name(name).rsplit(".", 1)[0]


def bare_name_without_role(name: str) -> str:
    return without_role(bare_name(name))


NAME_RULES: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (normalized_name, normalized_name),
    (without_one_ending, normalized_name),  # COLMAP's `00003.jpg.png` for `00003.jpg`
    (bare_name, bare_name),
    (bare_name_without_role, bare_name_without_role),
)
"""What of a file's and of an image's name must be the same, from all of it to the least."""


def numbers_of(names: Sequence[str]) -> list[int] | None:
    """The number of each name; None if one has none, or two have the same."""
    numbers = [last_number(bare_name(name)) for name in names]
    if any(number is None for number in numbers) or len(set(numbers)) < len(numbers):
        return None
    return [number for number in numbers if number is not None]


def counts_without_gaps(numbers: Sequence[int]) -> bool:
    """0, 1, 2, ... or 1, 2, 3, ... in any order."""
    n = len(numbers)
    return n > 1 and min(numbers) in (0, 1) and max(numbers) - min(numbers) == n - 1


def evenly_spaced(numbers: Sequence[int]) -> bool:
    """Evenly spaced, in any order."""
    return len(set(np.diff(sorted(numbers)).tolist())) <= 1


def constant_shift(numbers: Sequence[int], others: Sequence[int]) -> int | None:
    """What has to be added to all `numbers` to give `others`, in any order; None where that does not work."""
    differences = {b - a for a, b in zip(sorted(numbers), sorted(others))}
    return differences.pop() if len(numbers) == len(others) and len(differences) == 1 else None
