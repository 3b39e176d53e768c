"""What a predictor is: frames and whatever the user knows go in, a `Scene` comes out.

Adding a predictor is adding a settings class derived from `PredictorSettings` and a class that satisfies `Predictor`,
and one row in `registry` or an entry point of another package; nothing else learns its name.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.scene import Scene
from das3r_ns.video.clip import Clip

UserMaskMode = Literal["replace", "add", "subtract", "intersect"]
"""How the user's masks and what was found go together: only the user's; what either calls moving; what was found
without what the user marks; what both call moving."""

PromptMode = Literal["add", "limit", "always"]
"""What objects that the user names do to what was found: those that move at some time are added as wholes; nothing else
may move; all are added, whether they move or not."""


@dataclass(frozen=True)
class MovingPrompt:
    """Objects that the user names in words."""

    classes: tuple[str, ...]
    """English nouns: "person", "white dog"."""
    mode: PromptMode = "add"
    weights: tuple[str, ...] = ()
    """Folders or repositories of the networks that find them; empty for the default."""
    threshold: float = 0.3
    """Score from which an object counts, 0 to 1."""


@dataclass(frozen=True)
class DepthPrior:
    """Depth that another program or a sensor gives for each frame of a clip."""

    depth: Float[Tensor, "n h w"]
    """z-depth in the units of the cameras it came with, 0 where unknown. Of any resolution; a map covers exactly the
    field of view of its frame: what the other program cut off is 0."""
    confidence: Float[Tensor, "n h w"]
    """From 0, unknown, to 1, as good as this source gets; 1 where it says nothing about what it knows."""
    source: str = "the depth that was given"
    """Where it comes from, for messages."""

    def __post_init__(self) -> None:
        if self.depth.shape != self.confidence.shape:
            raise ValueError(f"depth has the shape {self.depth.shape} and its confidence {self.confidence.shape}")

    def crop(self, rows: tuple[float, float], columns: tuple[float, float]) -> "DepthPrior":
        """Depth of a part of each frame, whose edges are given as shares of the frame's height and width."""
        height, width = self.depth.shape[1:]
        row, column = (
            ((first + (last - first) * (torch.arange(count) + 0.5) / count) * side).long().clamp(0, side - 1)
            for (first, last), side in ((rows, height), (columns, width))
            for count in (max(1, round((last - first) * side)),)
        )
        return replace(self, depth=self.depth[:, row][:, :, column], confidence=self.confidence[:, row][:, :, column])


@dataclass(frozen=True)
class UserPriors:
    """What the user brings along; None where the predictor has to find out itself."""

    T_world_camera: Float[Tensor, "n 4 4"] | None = None
    """Camera-to-world of each frame, OpenCV axes, in the user's world and units, which the result keeps."""
    K: Float[Tensor, "n 3 3"] | None = None
    """Intrinsics of each frame in pixels of the clip. Given together with `T_world_camera`."""
    pose_known: Bool[Tensor, "n"] | None = None
    """False for frames whose given pose is only interpolated between those of its neighbours. None: all are known."""
    focal_px: float | None = None
    """Focal length in pixels of the clip, when it alone is known."""
    dynamic_mask: Float[Tensor, "n h w"] | None = None
    """1 where something moves, 0 elsewhere, at the clip's size; taken as truth unless `mask_mode` says otherwise."""
    mask_given: Bool[Tensor, "n"] | None = None
    """Which frames `dynamic_mask` speaks of, where not of all; in the others it is 0 and nothing is known."""
    mask_mode: UserMaskMode = "replace"
    """What `dynamic_mask` does to what is found, in the frames of which it speaks."""
    prompt: MovingPrompt | None = None
    """Objects that may move, by name."""
    depth: DepthPrior | None = None
    """Depth of each frame, in the units of `T_world_camera`, with which it is given."""
    applied_transform: Float64[Tensor, "4 4"] = field(default_factory=lambda: torch.eye(4, dtype=torch.float64))
    """From the world of the user's own files to that of `T_world_camera`, in double precision (map coordinates)."""

    def __post_init__(self) -> None:
        if (self.T_world_camera is None) != (self.K is None):
            raise ValueError("known cameras need both T_world_camera and K")
        if self.depth is not None and self.T_world_camera is None:
            raise ValueError("known depth needs the cameras in whose units it is")

    @property
    def all_masks_given(self) -> bool:
        """Whether nothing has to be found out about what moves."""
        replaces = self.dynamic_mask is not None and self.mask_mode == "replace"
        return replaces and (self.mask_given is None or bool(self.mask_given.all()))

    @property
    def excluded_mask(self) -> Float[Tensor, "n h w"] | None:
        """Where the user says that something moves, which cameras must not follow; None where they say nothing of it:
        a mask that subtracts marks what stands still."""
        return None if self.mask_mode == "subtract" else self.dynamic_mask


@runtime_checkable
class Predictor(Protocol):
    """Turns a clip into a scene. Building one is cheap and checks its settings; calling it is the long work."""

    name: str

    def __call__(self, clip: Clip, priors: UserPriors = ...) -> Scene:
        """Predict cameras, depth and dynamic maps.

        Returns:
            One camera per frame, in order, none dropped. Unless the cameras were given, the world is levelled
            (`geometry.level_world`: z up, median static depth about 1).

        Raises:
            PredictionError: the clip cannot be reconstructed; the message says why and what to try.
        """
        ...


@dataclass
class PredictorSettings(SavedConfig):
    """What a user can say to a predictor: a dataclass whose field docstrings are the help page. Imports nothing heavy;
    the predictor is imported in `build`."""

    def check(self) -> None:
        """
        Raises:
            ValueError: a value makes no sense; the message names its option.
        """

    def resolve_auto(self) -> "PredictorSettings":
        """The same with what `auto` means here and now in each setting, so that it can be recorded."""
        return self

    def asked_for(self) -> str:
        """Why `--predictor auto` means this predictor because of these settings, as half a sentence; empty if they say
        nothing about it."""
        return ""

    def offer(self) -> str:
        """One line with which this predictor is offered when another one doubts its own result; empty where it is not
        ready to run here, which must be found out without the network connection."""
        return ""

    def cache_key(self) -> dict[str, Any]:
        """What a predicted scene is found again by: the settings, with what `auto` means here and now."""
        return asdict(self.resolve_auto())

    def announcement(self, masks_given: bool) -> str:
        """One line to be said before the prediction; empty for none.

        Args:
            masks_given: the user brings the dynamic masks.
        """
        return ""

    def weight_files(self) -> dict[str, Path]:
        """Files or folders of weights that the settings name, by option: a scene records their digests."""
        return {}

    def build(self) -> "Predictor":
        """The predictor. Cheap, but whatever is missing (a package, weights) is said here.

        Raises:
            ImportError, RuntimeError: what is missing, and how to bring it.
        """
        raise NotImplementedError


class PredictionError(RuntimeError):
    """A clip that this predictor cannot reconstruct. The message says what was found and what to try."""
