"""Which sequences a set has, and which of their frames the published protocol takes."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from das3r_ns.datasets import TruthClip, TruthError, davis, is_truth_folder, read_truth_folder, sintel, tum

COMPOSITED_FOCAL_PX = 525.0
"""Focal length of the camera of the composited clips, whose folders do not say it."""


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a sequence are used: every `stride`-th from the first, at most `at_most`."""

    at_most: int | None = None
    stride: int = 1

    def of(self, num_frames: int) -> list[int]:
        """Indices of the frames."""
        return list(range(num_frames))[:: self.stride][: self.at_most]


FRAMES: dict[str, FrameChoice] = {
    # Sequences with fewer than 50 frames are taken whole: car-shadow, motocross-jump and market_6 have 40,
    # ambush_4 33, ambush_6 20.
    "davis": FrameChoice(50),
    "sintel": FrameChoice(50),
    "tum-dynamics": FrameChoice(90, stride=3),
    "composited": FrameChoice(),
    "synthetic": FrameChoice(),
}
"""By set; other folders of clips are taken as davis is."""


@dataclass(frozen=True)
class SequenceSource:
    """Where one sequence lies; plain text throughout, since it travels to workers."""

    set_name: str
    root: str
    name: str

    def read(self) -> TruthClip:
        """Its clip with everything that is known about it, all frames.

        Raises:
            TruthError: files are missing or damaged.
        """
        root = Path(self.root)
        if is_truth_folder(root / self.name):
            clip = read_truth_folder(root / self.name)
            if self.set_name == "composited" and clip.K is None:
                K = torch.diag(torch.tensor([COMPOSITED_FOCAL_PX, COMPOSITED_FOCAL_PX, 1.0], dtype=torch.float64))
                clip = replace(clip, K=K.repeat(len(clip), 1, 1))
            return clip
        readers = {"davis": davis.read_davis, "sintel": sintel.read_sintel, "tum-dynamics": tum.read_tum_dynamics}
        return readers[self.set_name](root, self.name)


def find_sequences(set_name: str, data: Path, wanted: tuple[str, ...] = ()) -> list[SequenceSource]:
    """The sequences to run: the wanted ones, else those of the published tables where the set is whole, else all that
    are there.

    Args:
        data: the set as its publisher packs it, or a folder of clips in our own layout.
    Raises:
        TruthError: there is no such data, or a wanted sequence is not in it.
    """
    root, found, usual = _contents(set_name, data)
    unknown = [name for name in wanted if name not in found]
    if unknown:
        raise TruthError(f"{root} has no sequence {unknown[0]!r}. It has: {', '.join(found)}.")
    chosen = list(wanted) or [name for name in usual if name in found] or found
    return [SequenceSource(set_name, str(root), name) for name in chosen]


def _contents(set_name: str, data: Path) -> tuple[Path, list[str], tuple[str, ...]]:
    """Root, all sequences in it, and those of the published tables."""
    if not data.is_dir():
        hint = "" if set_name in ("composited",) else f" `das3r download {set_name}` brings the set."
        raise TruthError(f"{data} is not a folder. Give the folder of {set_name} with --data.{hint}")
    ours = sorted(p.name for p in data.iterdir() if p.is_dir() and is_truth_folder(p))
    if ours:
        return data, ours, ()
    if set_name == "davis" and (root := davis.davis_root(data)) is not None:
        return root, davis.davis_sequences(root), davis.PAPER_SEQUENCES
    if set_name == "sintel" and (root := sintel.sintel_root(data)) is not None:
        return root, sintel.sintel_sequences(root), sintel.PAPER_SEQUENCES
    if set_name == "tum-dynamics" and (names := tum.tum_sequences(data)):
        return data, names, tum.SEQUENCES
    raise TruthError(
        f"{data} holds no sequences of {set_name}: neither as its publisher packs it nor as folders with images/ in "
        "them."
    )
