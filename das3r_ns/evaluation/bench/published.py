"""Figures that others published, each with where it comes from.

[V]: read from the tables and code that the authors of DAS3R released. [2nd]: taken from another publication, not
checked against the original. Quote them with that label.
"""

from dataclasses import dataclass

VERIFIED = "[V]"
SECOND_HAND = "[2nd]"


@dataclass(frozen=True)
class Published:
    """One line of somebody's table over a whole set."""

    method: str
    values: dict[str, float]
    """By the names of our own columns."""
    source: str


DAS3R_PSNR = {
    "davis": {
        "blackswan": 23.90, "camel": 27.27, "car-shadow": 29.13, "dog": 28.63, "horsejump-high": 25.09,
        "motocross-jump": 17.09, "parkour": 28.09, "soapbox": 26.41,
    },
    "sintel": {
        "alley_2": 31.10, "ambush_4": 24.52, "ambush_5": 26.28, "ambush_6": 19.26, "cave_2": 28.32, "cave_4": 31.86,
        "market_2": 29.03, "market_5": 26.49, "market_6": 23.58, "shaman_3": 45.60, "sleeping_1": 26.30,
        "sleeping_2": 25.67, "temple_2": 27.18, "temple_3": 23.90,
    },
}  # fmt: skip
"""Paper PSNR of DAS3R by sequence, [V]."""

_PSNR_METHODS = (
    ("WildGaussians", 18.18, 18.00),
    ("Robust3DGS", 21.40, 19.52),
    ("SLS-mlp", 21.94, 20.95),
    ("MonST3R + InstantSplat", 23.14, 27.18),
    ("DAS3R without staticness", 25.35, 25.38),
    ("DAS3R", 25.70, 27.79),
)

PSNR: dict[str, tuple[Published, ...]] = {
    "davis": (
        *(Published(name, {"paper_psnr": davis}, VERIFIED) for name, davis, _ in _PSNR_METHODS),
        Published("GA-GS (arXiv 2604.04331)", {"paper_psnr": 25.75}, SECOND_HAND),
    ),
    "sintel": tuple(Published(name, {"paper_psnr": sintel}, VERIFIED) for name, _, sintel in _PSNR_METHODS),
}
"""Means over the 8 sequences of DAVIS and the 14 of Sintel."""

_EASI3R = f"{SECOND_HAND}, Easi3R table 1"

MASKS: dict[str, tuple[Published, ...]] = {
    "davis": (
        Published("MonST3R, 8 sequences of the DAS3R paper", {"j_mean": 0.325}, VERIFIED),
        Published("DAS3R, 8 sequences of its paper", {"j_mean": 0.397}, VERIFIED),
        Published("DUSt3R + flow, DAVIS-16", {"j_mean": 0.421, "j_recall": 0.457}, _EASI3R),
        Published("MonST3R, DAVIS-16", {"j_mean": 0.409, "j_recall": 0.422}, _EASI3R),
        Published("DAS3R, DAVIS-16", {"j_mean": 0.416, "j_recall": 0.390}, _EASI3R),
        Published("Easi3R (MonST3R), DAVIS-16", {"j_mean": 0.577, "j_recall": 0.716}, _EASI3R),
        Published("VGGT4D (arXiv 2511.19971), DAVIS-16", {"j_mean": 0.621, "j_recall": 0.768}, SECOND_HAND),
        Published("DAS3R + SAM 2, DAVIS-16", {"j_mean": 0.542, "j_recall": 0.558}, _EASI3R),
        Published("Easi3R + SAM 2, DAVIS-16", {"j_mean": 0.707, "j_recall": 0.799}, _EASI3R),
        Published("SegAnyMo (arXiv 2503.22268) with SAM 2, DAVIS-16", {"j_mean": 0.906}, SECOND_HAND),
    ),
    "sintel": (
        Published("MonST3R", {"j_mean": 0.371}, VERIFIED),
        Published("DAS3R", {"j_mean": 0.593}, VERIFIED),
    ),
}
"""DAVIS-16: all 20 validation sequences."""


def _cameras(method: str, ate: float, translation: float, rotation: float, source: str) -> Published:
    return Published(method, {"ate": ate, "rpe_translation": translation, "rpe_rotation_deg": rotation}, source)


POSES: dict[str, tuple[Published, ...]] = {
    "sintel": (
        _cameras("DAS3R", 0.107, 0.041, 0.669, VERIFIED),
        _cameras("MonST3R", 0.108, 0.042, 0.732, VERIFIED),
        _cameras("CasualSAM", 0.141, 0.035, 0.615, VERIFIED),
        _cameras("MegaSaM", 0.074, 0.030, 0.126, SECOND_HAND),
        _cameras("pi3", 0.074, 0.040, 0.282, SECOND_HAND),
        _cameras("VGGT", 0.167, 0.062, 0.491, SECOND_HAND),
        _cameras("CUT3R", 0.213, 0.066, 0.621, SECOND_HAND),
    ),
    "tum-dynamics": (
        _cameras("DAS3R", 0.072, 0.019, 0.948, VERIFIED),
        _cameras("MonST3R", 0.104, 0.022, 1.042, VERIFIED),
        _cameras("CasualSAM", 0.071, 0.010, 1.712, VERIFIED),
    ),
}
"""In the units of the sets: Sintel's own, metres for TUM."""

TABLES = (MASKS, POSES, PSNR)
