"""What a user can say about a prediction; shared by the dataparser and by `das3r predict`."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.predictor.base import MovingPrompt, PromptMode, UserMaskMode
from das3r_ns.predictor.registry import PredictorOptions
from das3r_ns.video.config import VideoConfig

Numbering = Literal["auto", "from-0", "from-1", "in-order", "by-name"]
"""How the names of files beside the frames are read; `auto` finds out or refuses."""

Convention = Literal["auto", "opengl", "opencv", "opengl-inverse", "opencv-inverse"]
"""What a camera's matrix is: camera-to-world (or, inverse, world-to-camera) with the axes of OpenGL (x right, y up, z
back) or of OpenCV (x right, y down, z forward). `auto` is the file format's own."""


@dataclass
class _VideoOptions(SavedConfig):
    video: VideoConfig = field(default_factory=VideoConfig)
    """Which frames are read, and how large."""


@dataclass
class PredictionOptions(PredictorOptions, _VideoOptions):
    """How cameras, depth and moving parts are found. A scene folder, predicted before, ignores all of it."""

    masks: Path | None = None
    """Your own masks, white (or any object number or colour) where something moves: a folder of images or .npy files
    named like the frames; or one file: an image for all frames, a stack (.npy, .npz, GIF, TIFF) or a video. They
    replace the predicted ones, unless `masks_mode` says otherwise; frames without one are predicted."""
    masks_mode: UserMaskMode = "replace"
    """What your masks do to the predicted ones, in the frames that have one: `replace` them; `add` to them what you
    mark; `subtract` what you mark (it stands still); `intersect`, keep only what both mark, for example masks of all
    people of whom some sit still."""
    masks_white_is_static: bool = False
    """Your masks are white where nothing moves (nerfstudio's meaning)."""
    masks_prompt: str | None = None
    """Objects that may move, in English words: "person, dog" (extra `prompt`). They are found in each frame and
    followed; motion decides which of them move, and those count as moving as wholes and throughout, also while they
    rest."""
    masks_prompt_mode: PromptMode = "add"
    """What the objects of `masks_prompt` do: `add` those that move to all else that moves; `limit` what moves to them,
    so that water, leaves and shadows stay; `always` add all of them, also those that stand still throughout."""
    masks_prompt_weights: tuple[str, ...] = ()
    """Folders or hub repositories of the networks that find them. Empty: Grounding DINO and SAM 2.1 (Apache-2.0),
    fetched once, 0.9 GB. SAM 3 has a licence of its own: accept it, fetch it, and name `facebook/sam3` or its
    folder."""
    masks_prompt_threshold: float = 0.3
    """Score from which an object that was found by words counts, 0 to 1. Lower finds more, and more that is none."""
    cameras: Path | None = None
    """Cameras that you already have: a transforms.json, the folder of a COLMAP model, or what MegaSaM, MonST3R, CUT3R,
    ViPE, Depth Anything 3, VGGT, a SLAM program or a phone wrote, with its depth; matched to the frames. Only depth
    and masks are predicted then, and images are taken as they are stored, whatever their EXIF orientation, as COLMAP
    and nerfstudio take them. A folder with a transforms.json as `data` needs no mention."""
    cameras_convention: Convention = "auto"
    """What the matrices of `cameras`, or of a dataset, are: camera-to-world (or, inverse, world-to-camera) with the
    axes of OpenGL or OpenCV. `auto` is what the format says: `opengl` in transforms.json, `opencv-inverse` in
    COLMAP's, and refuses cameras that the images contradict where another convention fits."""
    numbering: Numbering = "auto"
    """How the numbers in names of masks and cameras count the frames: from 0 or 1 in the whole video, or in the order
    of the frames that are read. `auto` finds out, and refuses where names allow several readings."""
    fov_deg: float | None = None
    """Horizontal field of view of the frames in degrees, when you know it. None estimates it."""

    def check(self) -> None:
        """
        Raises:
            ValueError: options that contradict one another or make no sense.
            FileNotFoundError: the folder of masks or the cameras do not exist.
        """
        self.video.check()
        if self.fov_deg is not None and not 1 < self.fov_deg < 170:
            raise ValueError(f"--fov-deg must lie between 1 and 170 degrees, got {self.fov_deg}")
        if self.masks_white_is_static and self.masks is None:
            raise ValueError("--masks-white-is-static says something about --masks, which is not given.")
        if self.masks_mode != "replace" and self.masks is None:
            raise ValueError(
                f"--masks-mode {self.masks_mode} says what --masks does to the predicted masks, and --masks is not "
                "given. Masks of a dataset or of another program are named by --masks too."
            )
        self._check_prompt()
        if self.masks is not None and not self.masks.exists():
            raise FileNotFoundError(
                f"--masks {self.masks} does not exist. Give a folder of masks, an image, an array or a video."
            )
        if self.cameras is not None and not self.cameras.exists():
            raise FileNotFoundError(f"--cameras {self.cameras} does not exist.")

    def _check_prompt(self) -> None:
        """
        Raises:
            ValueError: settings of a prompt without one, or one without words.
        """
        given = {
            "mode": self.masks_prompt_mode != "add",
            "weights": bool(self.masks_prompt_weights),
            "threshold": self.masks_prompt_threshold != 0.3,
        }
        if self.masks_prompt is None:
            for name in (name for name, changed in given.items() if changed):
                raise ValueError(f"--masks-prompt-{name} says something about --masks-prompt, which is not given.")
            return
        if not 0 < self.masks_prompt_threshold < 1:
            raise ValueError(f"--masks-prompt-threshold must lie between 0 and 1, got {self.masks_prompt_threshold:g}")
        if not self.prompt_classes:
            raise ValueError(
                f'--masks-prompt {self.masks_prompt!r} names nothing. Give nouns, separated by commas: "person, dog".'
            )

    @property
    def prompt_classes(self) -> tuple[str, ...]:
        """The words of `masks_prompt`, each once and in lower case."""
        parts = re.split(r"[,;.\n]", self.masks_prompt or "")
        return tuple(dict.fromkeys(" ".join(part.lower().split()) for part in parts if part.strip()))

    @property
    def prompt(self) -> MovingPrompt | None:
        """What a predictor is told of `masks_prompt`."""
        if self.masks_prompt is None:
            return None
        return MovingPrompt(
            self.prompt_classes, self.masks_prompt_mode, self.masks_prompt_weights, self.masks_prompt_threshold
        )
