"""Which files of a folder are the frames of a clip, and in which order.

People keep masks, depth maps and previews beside their images; those are told apart by their names and left out. The
order is that of the numbers in the names, of every kind: padded or not, decimals (time stamps), signs, digits of other
scripts.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from das3r_ns.files.image_file import open_image

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pnm"})
HEIF_SUFFIXES = frozenset({".heic", ".heif"})
"""Read where `pillow-heif` is installed (the extra `heif`)."""
UNREADABLE_SUFFIXES = frozenset({".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"})
"""Kinds of images that cameras write and that need another program to become one of the above."""

ROLE_WORDS = frozenset((
    "mask", "masks", "seg", "segmentation", "matte", "alpha", "label", "labels", "instance", "instances",
    "semantic", "dynamic", "depth", "depths", "disp", "disparity", "normal", "normals", "flow", "conf",
    "confidence", "uncertainty", "overlay", "preview", "thumb", "thumbnail", "vis", "viz",
))  # fmt: skip
"""Words by which files beside the images say that they are something else than frames."""

COLOUR_WORDS = frozenset((
    "rgb", "color", "colour", "image", "img", "frame",
))  # fmt: skip
"""Words by which images themselves are told from masks and maps of the same number."""

MASK_MODES = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "F", "LA"})
"""Pillow's modes of images without colour: masks and maps, when they lie beside images with colour."""


DECIMAL = re.compile(r"(?<![\d.])\d+\.(\d+)(?![\d.])")
"""A number with a fraction; `1.2.3` is a version or a date."""
SIGNED = re.compile(r"(?:^|(?<=[\s_=(]))-\d")
"""A hyphen where a sign can stand."""


def heif_available() -> bool:
    """Whether HEIC images can be read; registers the reader with Pillow."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def readable_suffixes() -> frozenset[str]:
    """Endings (in lower case) of the images that can be read here."""
    return IMAGE_SUFFIXES | HEIF_SUFFIXES if heif_available() else IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """The frames in a folder (not in its subfolders), in the order of their numbers. Hidden files are left out, and so
    are masks, depth maps and the like beside the images, with a line that says so.

    Raises:
        ValueError: there are none, or some are of a kind that cannot be read; the message says what was found.
    """
    folder = Path(folder)
    files = ordered([p for p in folder.iterdir() if not p.name.startswith(".")])
    readable = readable_suffixes()
    images = [p for p in files if p.suffix.lower() in readable and p.is_file()]
    stems = {_stem(p) for p in images}  # a camera's raw file beside its JPEG is not a loss
    unreadable = (HEIF_SUFFIXES | UNREADABLE_SUFFIXES) - readable
    foreign = [p for p in files if p.suffix.lower() in unreadable and _stem(p) not in stems]
    if foreign:
        raise ValueError(_foreign(folder, images, foreign))
    if images:
        frames, companions = split_companions(images)
        if companions:
            _tell_once(
                f"{folder}: {len(companions)} of {len(images)} images are masks, maps or copies of others by their "
                f"names and are left out as frames (first: {companions[0].name})."
            )
        return frames
    below = [p for p in files if p.is_dir() and any(q.suffix.lower() in readable for q in p.iterdir())]
    if below:
        raise ValueError(f"{folder} holds no images itself, but {below[0]} does. Give that folder.")
    found = f"{len(files)} other files (first: {files[0].name})" if files else "nothing"
    raise ValueError(
        f"{folder} holds no images ({', '.join(sorted(s[1:] for s in readable))}), but {found}. "
        "Give a folder of images, a video file or a scene folder."
    )


_told: set[str] = set()


def _tell_once(line: str) -> None:
    if line not in _told:  # a folder is listed several times: its digest is taken before it is read
        _told.add(line)
        print(line)


def _foreign(folder: Path, images: list[Path], foreign: list[Path]) -> str:
    kinds = " and ".join(sorted({p.suffix.lower() for p in foreign}))
    beside = f" beside {len(images)} that can" if images else ""
    remedy = "Convert them to JPEG or PNG"
    if any(p.suffix.lower() in HEIF_SUFFIXES for p in foreign):
        remedy += " (HEIC is read after pip install 'das3r-ns[heif]')"
    if images:
        remedy += ", or move away those that are not to be used"
    return f"{folder} holds {len(foreign)} images of kind {kinds}, which cannot be read here{beside}. {remedy}."


def split_companions(images: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Frames, and files that accompany them: `a_mask.png` and `depth-a.png` beside `a.jpg`; `rgb_1.png` and
    `depth_1.png`; `a.png` without colour beside `a.jpg` with."""
    stems = {_stem(path) for path in images}
    by_rest: dict[tuple[str, ...], int] = defaultdict(int)
    for path in images:
        words = _words(path)
        if not set(words) & ROLE_WORDS:
            by_rest[tuple(word for word in words if word not in COLOUR_WORDS)] += 1
    frames, companions = [], []
    for path in images:
        words = _words(path)
        rest = tuple(word for word in words if word not in ROLE_WORDS | COLOUR_WORDS)
        is_companion = bool(set(words) & ROLE_WORDS) and by_rest[rest] > 0
        # COLMAP's masks: `a.jpg.png` beside `a.jpg`.
        is_companion |= Path(path.stem).suffix.lower() in IMAGE_SUFFIXES and _stem(Path(path.stem)) in stems
        (companions if is_companion else frames).append(path)
    # `depth_7.png` is not a frame either if `rgb_7.png` happens to be missing.
    series = {_series(path) for path in companions if set(_words(path)) & ROLE_WORDS}
    strays = [path for path in frames if _series(path) in series]
    frames, twins = _split_twins([path for path in frames if _series(path) not in series])
    return frames, companions + strays + twins


def _split_twins(images: list[Path]) -> tuple[list[Path], list[Path]]:
    """Of images of one name and two endings keep those of one ending: the ones with colour, else the first ending."""
    endings: dict[str, set[str]] = defaultdict(set)
    for path in images:
        endings[_stem(path)].add(path.suffix.lower())
    twins = {stem for stem, found in endings.items() if len(found) > 1}
    if not twins:
        return images, []
    of_ending: dict[str, list[Path]] = defaultdict(list)
    for path in images:
        if _stem(path) in twins:
            of_ending[path.suffix.lower()].append(path)
    kept = min(of_ending, key=lambda ending: (not _has_colour(of_ending[ending][0]), -len(of_ending[ending]), ending))
    companions = [
        path for path in images if _stem(path) in twins and path.suffix.lower() != kept and kept in endings[_stem(path)]
    ]
    gone = set(companions)
    return [path for path in images if path not in gone], companions


def _has_colour(path: Path) -> bool:
    try:
        with open_image(path) as image:
            return image.mode not in MASK_MODES
    except OSError:
        return True  # reading it says what is wrong


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFKC", path.stem).casefold()


def _words(path: Path) -> list[str]:
    words = re.split(r"[\s._\-]+|(?<=\d)(?=[a-z])|(?<=[a-z])(?=\d)", _stem(path))
    return [str(int(word)) if word.isdecimal() else word for word in words if word]


def _series(path: Path) -> tuple[str, ...]:
    return tuple(word for word in _words(path) if not word.isdecimal())


def ordered(paths: Sequence[Path]) -> list[Path]:
    """Paths in the order of the numbers in their names."""
    return [paths[i] for i in file_order([path.stem for path in paths], [path.name for path in paths])]


def file_order(stems: Sequence[str], names: Sequence[str] | None = None) -> list[int]:
    """Places in `stems` in the order of the numbers in them: `img2` before `img10`, `-1` before `0`, `0.25` before
    `0.5`, whatever the case of the letters and the script of the digits.

    Whether `1.10` is a decimal (before `1.9`) or comes after it as in versions, and whether a hyphen is a sign, the
    names as a whole tell.

    Args:
        names: what decides between equal stems.
    """
    texts = [unicodedata.normalize("NFKC", stem).casefold() for stem in stems]
    fractions = [found[1] for text in texts for found in DECIMAL.finditer(text)]
    decimal = len({len(fraction) for fraction in fractions}) > 1 and not any(f.endswith("0") for f in fractions)
    signed = sum(bool(SIGNED.search(text)) for text in texts)
    signs = 0 < signed < len(texts) or any(re.match(r"-\d", text) or re.search(r"[=(]-\d", text) for text in texts)
    pattern = re.compile(_number_pattern(signs, decimal))
    ties = stems if names is None else names
    return sorted(range(len(texts)), key=lambda i: (_key(texts[i], pattern), ties[i]))


def _number_pattern(signs: bool, decimals: bool) -> str:
    sign = r"(?:(?:^|(?<=[\s_=(]))-)?" if signs else ""
    number = r"(?:(?<![\d.])\d+\.\d+(?![\d.])|\d+)" if decimals else r"\d+"
    return f"({sign}{number})"


def _key(text: str, pattern: "re.Pattern[str]") -> tuple[tuple[int, Fraction, str], ...]:
    # Numbers and text never meet in a comparison: the first entry of each part tells them apart.
    parts = pattern.split(text)
    return tuple(
        (0, Fraction(part), "") if i % 2 else (1, Fraction(0), part) for i, part in enumerate(parts) if part or i % 2
    )


def natural_key(name: str) -> tuple[tuple[int, Fraction, str], ...]:
    """Sort key of one name: `img2` before `img10`. `file_order` sees more, from all names together."""
    text = unicodedata.normalize("NFKC", name).casefold()
    return (*_key(text, re.compile(r"(\d+)")), (2, Fraction(0), name))
