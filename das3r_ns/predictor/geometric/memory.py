"""What a clip will need of the main memory, said before its prediction starts."""

from __future__ import annotations

from dataclasses import dataclass

from das3r_ns.predictor.base import PredictionError
from das3r_ns.predictor.flow.clip_flow import APART_SHARE
from das3r_ns.predictor.geometric.config import GeometricPredictorConfig
from das3r_ns.runtime.memory import GIB, available_bytes

FIXED_BYTES = GIB
"""What is used whatever the clip: compiled kernels, the mapper, temporary arrays of the stages."""

COPIES_OF_FRAMES = 3
"""Of the frames at their own size: themselves, those without what lies over the scene, and those without the lens's
distortion. Many clips need only the first; which do is not known before."""

BYTES_OF_MAPS = 36
"""Per pixel of a frame's maps: depth, confidence, dynamic map, the evidence behind it, colours and votes of free space,
and what smooths them."""

BYTES_OF_FLOW = 4
"""Per pixel of one flow map: two halves of 16 bits."""

SURE_SHARE = 0.7
"""Share of the estimate that is needed in any case. A clip for which not even that is free is refused; one for which
the estimate is not gets a warning."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes of main memory beside what the process holds already."""

    frames: int
    maps: int
    flow: int
    fixed: int = FIXED_BYTES

    @property
    def total(self) -> int:
        return self.frames + self.maps + self.flow + self.fixed


def memory_need(num_frames: int, size: tuple[int, int], config: GeometricPredictorConfig) -> MemoryNeed:
    """Estimate from sizes.

    Args:
        size: height and width of the frames.
    """
    pixels = size[0] * size[1]
    map_pixels = int(pixels * min(1.0, config.map_longest_side / max(size)) ** 2)
    one_flow = map_pixels * BYTES_OF_FLOW
    memory = config.flow_memory_mb << 20
    apart = min(int(APART_SHARE * memory), num_frames * 2 * max(0, len(config.offsets) - 1) * one_flow)
    neighbours = min(memory - int(APART_SHARE * memory), num_frames * 2 * one_flow)
    return MemoryNeed(
        # Read already, so the first copy is not needed again.
        frames=(COPIES_OF_FRAMES - 1) * num_frames * pixels * 3,
        maps=num_frames * map_pixels * BYTES_OF_MAPS,
        flow=neighbours + apart,
    )


def check_memory(num_frames: int, size: tuple[int, int], config: GeometricPredictorConfig) -> str | None:
    """A warning if the clip may not fit the free memory; None if it does.

    Raises:
        PredictionError: it will not fit; the message names the options that reduce what is needed.
    """
    need, room = memory_need(num_frames, size, config), available_bytes()
    if need.total <= room:
        return None
    per_frame = (need.frames + need.maps) / num_frames
    fitting = int((room - need.fixed - need.flow) / per_frame)
    few = f"--video.max-frames {fitting}" if fitting >= 2 else "a smaller --video.max-frames"
    about = (
        f"{num_frames} frames of {size[1]}x{size[0]} need about {need.total / GIB:.1f} GiB of memory (frames "
        f"{need.frames / GIB:.1f}, maps {need.maps / GIB:.1f}, flow {need.flow / GIB:.1f}, other "
        f"{need.fixed / GIB:.1f}), and {room / GIB:.1f} GiB are free"
    )
    remedy = (
        f"Use {few}, smaller maps (--geometric.map-longest-side, now {config.map_longest_side}), less memory for flow "
        f"(--geometric.flow-memory-mb, now {config.flow_memory_mb}) or smaller frames (--video.longest-side)."
    )
    if SURE_SHARE * need.total > room:
        raise PredictionError(f"{about}. {remedy}")
    return f"{about}: it may not fit. {remedy}"
