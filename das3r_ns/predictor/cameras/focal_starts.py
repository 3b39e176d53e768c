"""Cameras from other starts of the focal length: an adjustment ends in the minimum that it started beside.

Where part of what was followed moves, or a near surface passes by, the robust cost has several minima along the focal
length. Each start holds a focal length, lets the path follow, then frees it. Estimates are told apart by what they
explain *finely* (`FINE_PX`): at half a pixel a wrong focal length explains as much as the right one.
"""

from __future__ import annotations

from dataclasses import replace

from das3r_ns.predictor.cameras.sfm import CameraEstimate, FocalKnowledge, Tracks, refine_cameras
from das3r_ns.predictor.cameras.sfm.estimate import explained_share
from das3r_ns.predictor.cameras.sfm.initialization import triangulate
from das3r_ns.predictor.cameras.sfm.normal_equations import State, invert

FINE_PX = 0.15
"""Pixels of the flow, three times the noise of a position of a good clip: at this distance half is explained."""
STARTS = (0.75, 1.35)
"""Focal lengths that are tried, over the one that was found."""
MIN_GAIN = 0.05
"""By how much more must be explained finely, relative, for another estimate to be taken."""
MIN_EXPLAINED_RATIO = 0.9
"""Of the inlier share: an estimate that explains fewer points more finely follows an object."""
EVERY_POINT = 3
"""Every so many points are tried first."""


def every_point(tracks: Tracks, step: int = EVERY_POINT) -> Tracks:
    """The tracks of every so many points."""
    return replace(
        tracks,
        pixel=tracks.pixel[:, 1::step],
        observed=tracks.observed[:, :, 1::step],
        seen=tracks.seen[:, :, 1::step],
        weight=tracks.weight[:, :, 1::step],
    )


def finely_explained(tracks: Tracks, size: tuple[int, int], cameras: CameraEstimate) -> float:
    """Share of the followed positions, by weight, that cameras explain to a fraction of a pixel.

    Args:
        size: height and width of the image that the focal length is measured in.
    """
    T, registered = invert(cameras.T_world_camera.numpy()), cameras.pose_known.numpy()
    focal = cameras.focal_px * tracks.size[1] / size[1]
    inverse_depth, _ = triangulate(tracks, T, focal, registered)
    return explained_share(tracks, State(T, focal, inverse_depth), registered, FINE_PX)


def best_of_other_starts(
    tracks: Tracks, size: tuple[int, int], cameras: CameraEstimate, focal: FocalKnowledge
) -> CameraEstimate:
    """The cameras, or better ones from another start of the focal length. Frames without a pose count as unexplained.

    Args:
        size: height and width of the image that the focal length is measured in.
    """
    if focal.known is not None:
        return cameras
    part = every_point(tracks)
    usual, found = finely_explained(part, size, cameras), None
    for factor in STARTS:
        start = cameras.focal_px * factor
        held = refine_cameras(
            part, size, cameras.T_world_camera, start, cameras.pose_known, FocalKnowledge(known=start)
        )
        free = refine_cameras(part, size, held.T_world_camera, held.focal_px, held.pose_known, focal)
        share = finely_explained(part, size, free)
        if share > (1 + MIN_GAIN) * usual:
            usual, found = share, free
    if found is None:
        return cameras
    better = refine_cameras(tracks, size, found.T_world_camera, found.focal_px, found.pose_known, focal)
    gains = finely_explained(tracks, size, better) > (1 + MIN_GAIN) * finely_explained(tracks, size, cameras)
    return better if gains and better.inlier_share > MIN_EXPLAINED_RATIO * cameras.inlier_share else cameras
