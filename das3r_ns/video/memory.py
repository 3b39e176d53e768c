"""Whether the frames of a clip fit the memory, said before one is decoded."""

from das3r_ns.runtime.memory import GIB, available_bytes

RESERVE = 0.05
"""Share of the free memory that is left to the rest of the machine."""
COPIES = 2
"""Of the frames: whoever asks for them works on a second copy (without overlays or distortion, or as a network's
input)."""


def check_memory_of_frames(num_frames: int, size: tuple[int, int], source: str) -> None:
    """
    Args:
        size: height and width of the frames as they are kept.
    Raises:
        ValueError: they need more than there is; the message says which options reduce them, and to what.
    """
    num_bytes = COPIES * num_frames * size[0] * size[1] * 3
    room = int(available_bytes() * (1 - RESERVE))
    if num_bytes <= room:
        return
    fitting = max(2, num_frames * room // num_bytes)
    side = max(size) * (room / num_bytes) ** 0.5
    raise ValueError(
        f"{num_frames} frames of {size[1]}x{size[0]} pixels of {source} take {num_bytes / GIB:.1f} GiB of memory with "
        f"the copy that is worked on, and {room / GIB:.1f} GiB are free. Read fewer with --video.max-frames {fitting} "
        f"(or --video.every, --video.end-s), or smaller ones with --video.longest-side {int(side) // 2 * 2}."
    )
