"""MPI-Sintel (training half, final pass) for validation: its masks are what the camera does not explain.

A mask compares a frame with the next one, whatever the other frame of the pair is, so the last frame of a sequence
takes part in no pair.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from das3r_ns.datasets.sintel import read_dpt, read_sintel, sintel_root, sintel_sequences
from das3r_ns.datasets.truth import TruthClip
from das3r_ns.datasets.truth_files import TruthError
from das3r_ns.predictor.training.data.sources import BadDataError, Frame, NothingLeftError, Pair, Problem, readable_size
from das3r_ns.predictor.training.data.strides import pool_of_pairs
from das3r_ns.video.images import read_image


class Sintel:
    """A `PairSource` of the sequences that are there."""

    def __init__(self, folder: Path, max_stride: int, seed: int) -> None:
        """Index the set.

        Raises:
            FileNotFoundError: it is not there.
            NothingLeftError: no sequence can be used.
        """
        root = sintel_root(folder)
        if root is None:
            raise FileNotFoundError(
                f"{folder} holds no training/final of MPI-Sintel; `das3r download sintel` fetches it"
            )
        self.name = "sintel/final"
        self.problems: list[Problem] = []
        self.clips: list[TruthClip] = []
        frames: list[list[int]] = []
        for sequence in sintel_sequences(root):
            try:
                clip = read_sintel(root, sequence)
                if clip.dynamic_mask is None:
                    raise TruthError("has no flow or no depth, so nothing says what moves")
            except TruthError as error:
                self.problems.append(Problem(str(root / "training" / "final" / sequence), str(error)))
                continue
            self.clips.append(clip)
            frames.append(list(range(len(clip) - 1)))
        self.pairs = pool_of_pairs(frames, max_stride, seed)
        if not self.pairs:
            raise NothingLeftError(f"{folder} holds no sequence that can be used:", self.problems)

    def image_size(self, pair: Pair) -> tuple[int, int]:
        """Height and width of the frames of a pair. Raises BadDataError."""
        return readable_size(self._image(pair.sequence, pair.first))

    def read(self, pair: Pair) -> tuple[Frame, Frame]:
        """Both frames of a pair. Raises BadDataError."""
        return self._frame(pair.sequence, pair.first), self._frame(pair.sequence, pair.second)

    def _image(self, sequence: int, number: int) -> Path:
        images = self.clips[sequence].images
        assert images is not None
        return images[number]

    def _frame(self, sequence: int, number: int) -> Frame:
        clip, image = self.clips[sequence], self._image(sequence, number)
        assert clip.dynamic_mask is not None
        assert clip.K is not None
        assert clip.T_world_camera is not None
        try:
            mask = clip.dynamic_mask(number)
            depth = read_dpt(clip.folder / "depth" / clip.name / f"{image.stem}.dpt")
            rgb = read_image(image)
        except (OSError, ValueError) as error:
            raise BadDataError(image, str(error)) from error
        if mask is None or not rgb.shape[:2] == mask.shape == depth.shape:
            raise BadDataError(image, "has no mask, or one of another size")
        return Frame(
            rgb=rgb,
            depth=depth.numpy(),
            dynamic=mask.numpy().astype(np.uint8),
            K=clip.K[number].numpy().astype(np.float32),
            T_world_camera=clip.T_world_camera[number].numpy().astype(np.float32),
        )
