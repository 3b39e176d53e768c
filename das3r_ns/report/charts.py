"""Coordinates of the report's drawings, for the template to put into SVG: curves over the frames, and camera paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.scene import Scene

WIDTH, HEIGHT = 600, 110
"""Of a curve's drawing, in units of its own."""
PLAN_SIDE = 360
"""Of a plan's drawing."""
MAX_DOTS = 2500
"""Points of the scene in a plan."""
PLAN_QUANTILE = 0.03
"""Share of the points at either end of an axis that may lie outside the plan: the farthest are often wrong."""
TICK = 14.0
"""Length of a viewing direction in a plan."""


@dataclass(frozen=True)
class Curve:
    """A value of every frame, as an SVG path."""

    title: str
    unit: str
    path: str
    lowest: str
    highest: str
    """Values at the bottom and the top."""
    marks: tuple[float, ...] = ()
    """Places across of frames that are pointed out."""


def curve(
    title: str, unit: str, values: Sequence[float | None], top: float | None = None, marks: Sequence[int] = ()
) -> Curve | None:
    """A curve over the frames, from 0 to the largest value or `top`; None if there is no value.

    Args:
        values: one a frame; gaps where there is none.
        marks: numbers of frames to point out, counted from 0.
    """
    known = [value for value in values if value is not None and np.isfinite(value)]
    if not known:
        return None
    highest = top if top is not None else max(known) or 1.0
    across = [WIDTH * i / max(1, len(values) - 1) for i in range(len(values))]
    path, pen = [], "M"
    for x, value in zip(across, values):
        if value is None or not np.isfinite(value):
            pen = "M"
            continue
        path.append(f"{pen}{x:.1f} {HEIGHT * (1 - min(max(value / highest, 0.0), 1.0)):.1f}")
        pen = "L"
    if len(known) == 1:
        path.append("h1")
    return Curve(title, unit, "".join(path), "0", f"{highest:.3g}", tuple(round(across[i], 1) for i in marks))


@dataclass(frozen=True)
class PlanCamera:
    """A camera in a plan."""

    x: float
    y: float
    tip_x: float
    tip_y: float
    """End of its viewing direction."""
    colour: str
    frame: int
    """Counted from 1."""


@dataclass(frozen=True)
class Plan:
    """Camera path and points of the scene, seen along one axis."""

    title: str
    dots: str
    """SVG path of the points."""
    path: str
    cameras: tuple[PlanCamera, ...]


def plans(scene: Scene, colours: Sequence[str]) -> tuple[Plan, Plan]:
    """The camera path from above and from the side.

    Args:
        scene: levelled, z up.
        colours: one a frame, as SVG has them.
    """
    static = scene.points.xyz
    step = max(1, len(static) // MAX_DOTS)
    points = static[::step][:MAX_DOTS].double()
    return (
        _plan("From above", scene.T_world_camera.double(), points, (0, 1), colours),
        _plan("From the side", scene.T_world_camera.double(), points, (0, 2), colours),
    )


def _plan(
    title: str,
    T_world_camera: Float[Tensor, "n 4 4"],
    points: Float[Tensor, "p 3"],
    axes: tuple[int, int],
    colours: Sequence[str],
) -> Plan:
    chosen = list(axes)
    centres, ahead = T_world_camera[:, :3, 3][:, chosen], T_world_camera[:, :3, 2][:, chosen]
    corners = [centres]
    if len(points):
        ends = torch.tensor([PLAN_QUANTILE, 1 - PLAN_QUANTILE], dtype=torch.float64)
        corners.append(torch.quantile(points[:, chosen], ends, dim=0))
    box = torch.cat(corners)
    middle = (box.amin(dim=0) + box.amax(dim=0)) / 2
    scale = 0.9 * PLAN_SIDE / max(float((box.amax(dim=0) - box.amin(dim=0)).max()), 1e-9)

    def placed(values: Tensor) -> np.ndarray:
        flat = ((values - middle) * scale).numpy()
        return np.stack((PLAN_SIDE / 2 + flat[:, 0], PLAN_SIDE / 2 - flat[:, 1]), axis=1)  # SVG's y points down

    dots = placed(points[:, chosen]) if len(points) else np.zeros((0, 2))
    dots = dots[((dots >= 0) & (dots <= PLAN_SIDE)).all(axis=1)]
    places = placed(centres)
    tips = places + TICK * ahead.numpy() * (1, -1)
    cameras = tuple(
        PlanCamera(x, y, tip_x, tip_y, colour, i + 1)
        for i, ((x, y), (tip_x, tip_y), colour) in enumerate(zip(places.round(1), tips.round(1), colours))
    )
    return Plan(
        title,
        "".join(f"M{x:.0f} {y:.0f}h0" for x, y in dots),
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places),
        cameras,
    )
