"""What a user can say about a prediction; shared by the dataparser and by `das3r predict`."""

from dataclasses import dataclass, field
from pathlib import Path

from das3r_ns.files.saved_config import SavedConfig
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.predictor.network.settings import NetworkPredictorConfig
from das3r_ns.predictor.registry import PredictorChoice
from das3r_ns.video.config import VideoConfig


@dataclass
class PredictionOptions(SavedConfig):
    """How cameras, depth and moving parts are found. A scene folder, predicted before, ignores all of it."""

    video: VideoConfig = field(default_factory=VideoConfig)
    """Which frames are read, and how large."""
    predictor: PredictorChoice = "auto"
    """`auto` takes the network when its weights are at hand, or when there is a GPU and they can be fetched; else
    `geometric`, which needs none."""
    geometric: GeometricPredictorConfig = field(default_factory=GeometricPredictorConfig)
    """Settings of the geometric predictor."""
    network: NetworkPredictorConfig = field(default_factory=NetworkPredictorConfig)
    """Settings of the network predictor."""
    masks: Path | None = None
    """Folder of your own masks, white where something moves, one a frame, matched by name or else by order. They
    replace the predicted ones."""
    masks_white_is_static: bool = False
    """Your masks are white where nothing moves (nerfstudio's meaning)."""
    cameras: Path | None = None
    """Cameras that you already have: a transforms.json, or the folder of a COLMAP model, matched to the frames by
    file name. Only depth and masks are predicted then, and pictures are taken as they are stored, whatever their EXIF
    orientation, as COLMAP and nerfstudio take them. A folder with a transforms.json as `data` needs no mention."""
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
        if self.masks is not None and not self.masks.is_dir():
            raise FileNotFoundError(f"--masks {self.masks} is no folder. Give a folder with one picture a frame.")
        if self.cameras is not None and not self.cameras.exists():
            raise FileNotFoundError(f"--cameras {self.cameras} does not exist.")
