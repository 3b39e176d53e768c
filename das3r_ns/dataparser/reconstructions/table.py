"""Which program wrote a file or folder: the one place where all readers are named."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from das3r_ns.dataparser.reconstructions import (
    cut3r,
    depth_anything,
    megasam,
    monst3r,
    phones,
    trajectory,
    vggt,
    vipe,
)
from das3r_ns.dataparser.reconstructions.types import Reconstruction


@dataclass(frozen=True)
class Reader:
    """How the files of one program are told and read."""

    tool: str
    recognizes: Callable[[Path], bool]
    """Whether a path is such files, by names and headers only."""
    read: Callable[[Path], Reconstruction]


READERS = (
    Reader("MegaSaM", megasam.is_archive, megasam.read_archive),
    Reader("MegaSaM or DROID-SLAM", megasam.is_folder, megasam.read_folder),
    Reader("DROID-SLAM", megasam.is_pth, megasam.read_pth),
    Reader("MonST3R or DAS3R", monst3r.is_folder, monst3r.read),
    Reader("CUT3R", cut3r.is_folder, cut3r.read),
    Reader("ViPE", vipe.is_results, vipe.read),
    Reader("Depth Anything 3", depth_anything.is_export, depth_anything.read_export),
    Reader("Depth Anything 3 (streaming)", depth_anything.is_streaming, depth_anything.read_streaming),
    Reader("VGGT", vggt.is_predictions, vggt.read),
    Reader("WildGS-SLAM", trajectory.is_wildgs, trajectory.read_wildgs),
    Reader("TUM trajectory", trajectory.is_trajectory, trajectory.read),
    Reader("Record3D", phones.is_record3d, phones.read_record3d),
    Reader("Stray Scanner", phones.is_stray, phones.read_stray),
    Reader("Polycam", phones.is_polycam, phones.read_polycam),
)
"""Those with the most particular files first."""


def find_reader(path: Path) -> Reader | None:
    """The reader of a file or folder; None where no program of the table wrote it."""
    try:
        return next((reader for reader in READERS if reader.recognizes(path)), None)
    except OSError:  # a name that is too long, a folder without permission
        return None


def read_reconstruction(path: Path) -> Reconstruction | None:
    """What a program wrote; None where no program of the table wrote it.

    Raises:
        ValueError: a file is missing, damaged or of another version.
        ImportError: a package is missing.
    """
    reader = find_reader(path)
    return None if reader is None else reader.read(path)
