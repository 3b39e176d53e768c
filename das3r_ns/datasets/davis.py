"""DAVIS as its publishers pack it (2016, and 2017 at 480p): images, and masks as palette PNGs.

ROOT/JPEGImages/480p/SEQUENCE/00000.jpg
ROOT/Annotations/480p/SEQUENCE/00000.png     pixel values are object numbers, 0 is background
"""

from pathlib import Path

from das3r_ns.datasets.truth import TruthClip
from das3r_ns.datasets.truth_files import TruthError, images_of, read_dynamic_mask

RESOLUTION = "480p"

PAPER_SEQUENCES = (
    "blackswan", "camel", "car-shadow", "dog", "horsejump-high", "motocross-jump", "parkour", "soapbox",
)  # fmt: skip
"""The eight sequences of the published table."""

VAL_2016 = (
    "blackswan", "bmx-trees", "breakdance", "camel", "car-roundabout", "car-shadow", "cows", "dance-twirl", "dog",
    "drift-chicane", "drift-straight", "goat", "horsejump-high", "kite-surf", "libby", "motocross-jump",
    "paragliding-launch", "parkour", "scooter-black", "soapbox",
)  # fmt: skip
"""The validation half of DAVIS-2016, over which masks are compared in the literature."""


def davis_root(folder: Path) -> Path | None:
    """The folder that holds JPEGImages: `folder` itself or its DAVIS subfolder; None if neither."""
    return next((root for root in (folder, folder / "DAVIS") if (root / "JPEGImages" / RESOLUTION).is_dir()), None)


def davis_sequences(root: Path) -> list[str]:
    """Names of all sequences that are there."""
    return sorted(p.name for p in (root / "JPEGImages" / RESOLUTION).iterdir() if p.is_dir())


def read_davis(root: Path, sequence: str) -> TruthClip:
    """One sequence.

    Raises:
        TruthError: images are missing, or an image has no mask.
    """
    images = images_of(root / "JPEGImages" / RESOLUTION / sequence)
    annotations = root / "Annotations" / RESOLUTION / sequence
    masks = [annotations / f"{path.stem}.png" for path in images]
    missing = [path for path in masks if not path.is_file()]
    if missing:
        raise TruthError(
            f"{missing[0]} is missing ({len(missing)} of {len(masks)} frames have no mask). The test sets of DAVIS "
            "come without masks; use trainval."
        )
    return TruthClip(
        name=sequence,
        folder=annotations,
        num_frames=len(images),
        images=images,
        dynamic_mask=lambda i: read_dynamic_mask(masks[i]),
    )
