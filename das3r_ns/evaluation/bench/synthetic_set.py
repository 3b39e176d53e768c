"""The set `synthetic`: clips that are drawn when they are first asked for, with everything known about them.

It needs no data and no network connection, so that anybody can repeat a table, and it holds what no published set
has: scenes in which nothing moves, or most of the image does, or objects rest, or the exposure drifts, all with clean
backgrounds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from das3r_ns.runtime.progress import tracked
from das3r_ns.scene import written_whole
from das3r_ns.synthetic import SyntheticConfig, make_clip, write_clip

FORMAT = SyntheticConfig(num_frames=50, height=288, width=512)
"""The published protocol's number of frames and width."""

CLIPS: dict[str, SyntheticConfig] = {
    "handheld": FORMAT,
    "orbit": replace(FORMAT, camera="orbit", seed=1),
    "forward": replace(FORMAT, camera="forward", seed=2),
    "still": replace(FORMAT, movers=0, seed=3),
    "crowded": replace(FORMAT, mover_size=2.0, seed=4),
    "exposure": replace(FORMAT, exposure_drift=1.0, seed=5),
    "waiting": replace(FORMAT, movers_wait=0.5, seed=6),
}
"""By sequence: a sideways sweep with shake, an arc, straight ahead, nothing that moves, an object before more than half
of the image, a stop more light at the end than at the beginning, objects that stand for half of the clip."""


def draw_missing(root: Path, wanted: tuple[str, ...]) -> None:
    """Write the clips of this set that are wanted and that `root` does not hold yet, each whole or not at all."""
    missing = [name for name in wanted if name in CLIPS and not (root / name).is_dir()]
    if not missing:
        return
    for name in tracked(missing, f"Drawing {len(missing)} synthetic clips into {root}", len(missing)):
        with written_whole(root / name) as folder:
            write_clip(make_clip(CLIPS[name]), folder, video=False)
