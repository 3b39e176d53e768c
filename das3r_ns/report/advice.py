"""What is in doubt about a clip or its run, each with what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from das3r_ns.scene import DYNAMIC_THRESHOLD, Scene

MAX_MOVING_SHARE = 0.6
"""Of all pixels. With more, little is left to find cameras by."""
MIN_MOVING_SHARE = 5e-4
"""With less, nothing was found to move."""
MIN_KNOWN_DEPTH_SHARE = 0.3
"""Of the static pixels."""
MAX_UNSEEN_SHARE = 0.02
"""Of the pixels of the static video."""
BLANK_SHARE = 0.95
"""A frame of which more moves shows nothing static: blank, or covered altogether."""
MAX_LISTED_FRAMES = 12

REMEDY_OF_CAMERAS = (
    "Look at the camera path and at frames of low trust below. A part of the clip (--video.start-s, --video.end-s), "
    "the known field of view (--fov-deg), masks of what moves (--masks) or cameras of your own (--cameras) help."
)
REMEDIES_OF_DOUBTS = {
    "focal length": "Give the field of view if you know it: --fov-deg. It is the horizontal one, in degrees.",
    "explain only": "Something large moves, or the frames are blurred. Give masks of what moves (--masks), or take "
    "another part of the clip (--video.start-s, --video.end-s).",
}
"""By words of a doubt in the quality record."""


@dataclass(frozen=True)
class Advice:
    """A doubt, and what to do about it."""

    what: str
    todo: str


def advice_on_scene(scene: Scene) -> list[Advice]:
    """Doubts about a prediction."""
    return [*_on_cameras(scene), *_on_frames(scene), *_on_masks(scene), *_on_depth(scene)]


def moving_shares(scene: Scene) -> Float[Tensor, "n"]:
    """Share of each frame that moves."""
    return (scene.dynamic_prob > DYNAMIC_THRESHOLD).count_nonzero(dim=(1, 2)) / scene.dynamic_prob[0].numel()


def known_depth_share(scene: Scene) -> float | None:
    """Share of the static pixels whose depth is known; None if nothing is static."""
    static = scene.dynamic_prob <= DYNAMIC_THRESHOLD
    num_static = int(static.count_nonzero())
    return int((static & (scene.depth > 0)).count_nonzero()) / num_static if num_static else None


def _on_cameras(scene: Scene) -> list[Advice]:
    said = scene.provenance
    clip = (said.get("quality") or {}).get("clip") or {}
    found = [Advice(f"The cameras are in doubt: {doubt}.", _remedy(str(doubt))) for doubt in clip.get("doubts") or ()]
    kind = clip.get("motion_model")
    if kind in ("static", "rotation"):
        moves = "stands still" if kind == "static" else "only turns"
        found.append(
            Advice(
                f"The camera {moves}: nothing tells how far things are away, and depth is a guess.",
                "The scene is right from where it was filmed. For other viewpoints, film while you walk sideways.",
            )
        )
    shot = said.get("shot")
    if isinstance(shot, dict) and shot.get("of", 1) != 1:
        found.append(
            Advice(
                f"The video is cut: this is shot {shot.get('number')} of {shot.get('of')}.",
                "Another shot is predicted with --video.shot NUMBER.",
            )
        )
    return found


def _remedy(doubt: str) -> str:
    return next((text for words, text in REMEDIES_OF_DOUBTS.items() if words in doubt), REMEDY_OF_CAMERAS)


def _on_frames(scene: Scene) -> list[Advice]:
    found = []
    distrusted = (scene.provenance.get("quality") or {}).get("distrusted_frames") or []
    if distrusted:
        found.append(
            Advice(
                f"{_frames(distrusted)} of less trust: they explain less of what was followed than the others, and "
                "count less in training.",
                "Blur, flashes and something close to the lens do this. If the render is soft there, leave that part "
                "out: --video.start-s, --video.end-s.",
            )
        )
    guessed = torch.nonzero(~scene.pose_known).flatten().tolist()
    if guessed:
        found.append(
            Advice(
                f"{_frames(guessed)} without a camera of their own: it was interpolated between neighbours.",
                "They count little in training. More frames there (--video.max-frames) may connect them.",
            )
        )
    return found


def _on_masks(scene: Scene) -> list[Advice]:
    shares = moving_shares(scene)
    found = []
    if float(shares.mean()) > MAX_MOVING_SHARE:
        found.append(
            Advice(
                f"{float(shares.mean()):.0%} of all pixels move: little static is left.",
                "Look at the masks below. Where they are too large, give back what stands still: das3r edit SCENE.",
            )
        )
    elif float(shares.mean()) < MIN_MOVING_SHARE:
        found.append(
            Advice(
                "Nothing was found to move.",
                "If something does, mark it with das3r edit SCENE, or give masks of your own (--masks).",
            )
        )
    blank = torch.nonzero(shares > BLANK_SHARE).flatten().tolist()
    if blank and len(blank) < len(scene):
        found.append(
            Advice(
                f"{_frames(blank)} that show nothing static: blank, or covered by something that moves.",
                "They teach nothing and do no harm.",
            )
        )
    return found


def _on_depth(scene: Scene) -> list[Advice]:
    known = known_depth_share(scene)
    if known is None or known >= MIN_KNOWN_DEPTH_SHARE:
        return []
    return [
        Advice(
            f"Depth is known for {known:.0%} of the static pixels only.",
            "Training fills the rest. More camera motion, or more light and texture, give more.",
        )
    ]


def advice_on_run(
    steps: int, max_steps: int, cut: float, default_cut: float, keep_dynamic: bool, unseen: float | None
) -> list[Advice]:
    """Doubts about a run.

    Args:
        steps: that were trained.
        cut: of staticness, as renders and exports use it now.
        default_cut: of the run's settings.
        unseen: share of the static video's pixels that show no surface, None if it was not rendered.
    """
    found = []
    if steps < max_steps:
        found.append(
            Advice(
                f"Training stopped after step {steps} of {max_steps}.",
                "Go on with ns-train METHOD --data DATA --load-dir RUN/nerfstudio_models.",
            )
        )
    if keep_dynamic:
        found.append(Advice("Gaussians that move are kept in renders and exports.", "Train without --keep-dynamic."))
    elif abs(cut - default_cut) > 1e-6:
        found.append(
            Advice(
                f"The cut of staticness was moved in the viewer: {cut:.2f} instead of {default_cut:.2f}.",
                "Renders and exports use it. Delete RUN/staticness_cut.json to go back.",
            )
        )
    if unseen is not None and unseen > MAX_UNSEEN_SHARE:
        found.append(
            Advice(
                f"{unseen:.1%} of the static video's pixels show no surface: something stood before them in every "
                "frame, or nothing was near enough to be found.",
                "Nothing is known of what is there. The output `unseen` shows where; film it from another side.",
            )
        )
    return found


def _frames(places: Sequence[Any]) -> str:
    listed = ", ".join(str(int(place) + 1) for place in places[:MAX_LISTED_FRAMES])
    more = f" and {len(places) - MAX_LISTED_FRAMES} more" if len(places) > MAX_LISTED_FRAMES else ""
    return f"Frame{'' if len(places) == 1 else 's'} {listed}{more}"
