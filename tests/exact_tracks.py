"""Flow and tracks without error, from known cameras and depths: what structure from motion is tested on."""

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from das3r_ns import geometry
from das3r_ns.predictor.cameras.sfm import Tracks
from das3r_ns.predictor.cameras.sfm.normal_equations import RobustScale, State
from das3r_ns.predictor.flow.flow_maps import round_trip_error
from das3r_ns.synthetic import SyntheticClip


class ExactFlow:
    """Flow of the static scene from true depth and cameras, with noise and with wrong blocks when asked for."""

    def __init__(self, clip: SyntheticClip, noise: float = 0.0, outliers: float = 0.0) -> None:
        self.clip, self.noise, self.outliers, self.kept = clip, noise, outliers, {}

    def one(self, i: int, j: int) -> np.ndarray:
        if (i, j) not in self.kept:
            T = self.clip.T_world_camera.double()
            K = self.clip.K.double()
            T_j_i = geometry.invert(T[j]) @ T[i]
            flow = geometry.rigid_flow(self.clip.clean_depth[i].double(), K, K, T_j_i)[0].numpy()
            rng = np.random.default_rng(1000 * i + j)
            self.kept[i, j] = (flow + rng.normal(0, self.noise, flow.shape)).astype(np.float32)
        return self.kept[i, j]

    def __call__(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        flow = self.one(i, j)
        error = round_trip_error(flow, self.one(j, i))
        if self.outliers:  # a band of the image sways by itself, alike in all frames
            width = int(self.outliers * flow.shape[1])
            flow = flow.copy()
            flow[:, :width] += self._sway(j) - self._sway(i)
        return flow, error

    @staticmethod
    def _sway(frame: int) -> np.ndarray:
        return 5 * np.array([np.sin(0.9 * frame), np.cos(1.3 * frame)], np.float32)


def small_problem() -> tuple[Tracks, State, RobustScale]:
    """Three cameras, two anchors, five points an anchor."""
    rng = np.random.default_rng(3)
    T = np.tile(np.eye(4), (3, 1, 1))
    T[:, :3, :3] = Rotation.from_rotvec(rng.normal(0, 0.1, (3, 3))).as_matrix()
    T[:, :3, 3] = rng.normal(0, 0.2, (3, 3))
    pixel = rng.uniform(5, 40, (2, 5, 2)).astype(np.float32)
    target = np.array([[1, 2], [0, 2]])
    weight = rng.uniform(0.2, 1, (2, 2, 5)).astype(np.float32)
    tracks = Tracks(
        np.array([0, 1]), target, np.array([1.0, 2.0]), pixel, np.zeros((2, 2, 5, 2), np.float32), weight, weight, 3,
        (40, 50),
    )  # fmt: skip
    state = State(T, 45.0, rng.uniform(0.3, 1.0, (2, 5)))
    observed = np.stack([reproject(tracks, state, a) for a in range(2)]) + rng.normal(0, 0.5, (2, 2, 5, 2))
    tracks = replace(tracks, observed=observed.astype(np.float32))
    return tracks, state, RobustScale(np.full((2, 2), 0.7), 2.0)


def reproject(tracks: Tracks, state: State, a: int) -> np.ndarray:
    """Slow and plain: lift, move, project, one point at a time."""
    out = np.zeros((tracks.target.shape[1], tracks.pixel.shape[1], 2))
    centre = np.array(tracks.centre)
    for slot, j in enumerate(tracks.target[a]):
        T = state.T_camera_world[j] @ np.linalg.inv(state.T_camera_world[tracks.anchor[a]])
        for p, pixel in enumerate(tracks.pixel[a]):
            point = np.append((pixel - centre) / state.focal, 1) / state.inverse_depth[a, p]
            moved = T[:3, :3] @ point + T[:3, 3]
            out[slot, p] = state.focal * moved[:2] / moved[2] + centre
    return out
