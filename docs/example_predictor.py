"""A predictor in a package of its own: a camera that never moves and looks at a wall.

In that package's pyproject.toml:

    [project.entry-points."das3r_ns.predictors"]
    still = "example_predictor:StillCameraSettings"

Then `ns-train das3r --data clip.mp4 das3r-data --predictor still --still.distance 3` uses it.
"""

from dataclasses import dataclass

from das3r_ns.predictor.base import Predictor, PredictorSettings


@dataclass
class StillCameraSettings(PredictorSettings):
    """A camera on a tripod before a wall."""

    distance: float = 1.0
    """z-depth of every pixel, in world units."""

    def check(self) -> None:
        if not self.distance > 0:
            raise ValueError(f"--still.distance must be above 0, got {self.distance}")

    def build(self) -> Predictor:
        return StillCamera(self)  # import what is heavy here, not above: help and cached scenes do without


class StillCamera:
    name = "still"

    def __init__(self, settings: StillCameraSettings) -> None:
        self.settings = settings

    def __call__(self, clip, priors=None):
        import torch

        from das3r_ns.geometry import intrinsics
        from das3r_ns.predictor.seed_points import no_points
        from das3r_ns.scene import Scene

        n, (height, width) = len(clip), clip.size
        return Scene(
            T_world_camera=torch.eye(4).expand(n, 4, 4).clone(),  # OpenCV axes, one camera a frame
            K=intrinsics(float(width), height, width).expand(n, 3, 3).clone(),  # pixels of the clip
            image_size=clip.size,
            depth=torch.full((n, height, width), self.settings.distance),  # 0 where unknown
            confidence=torch.ones(n, height, width),
            dynamic_prob=torch.zeros(n, height, width),  # 1 where something moves
            points=no_points(),
            pose_known=torch.ones(n, dtype=torch.bool),
            names=clip.names,
            fps=clip.fps,
            provenance={"predictor": self.name},
        )
