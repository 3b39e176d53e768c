"""Processor seconds (of all threads) and memory that reading a video takes, by kind of file.

    python benchmarks/reading.py                         # ours, against nothing but decoding every frame
    python benchmarks/reading.py --videos a.mp4 b.mov    # your own files

Without files of your own, clips of one kind each are written by the ffmpeg program: 300 frames of 1280x720. Of each all
frames are read (as `--video.max-frames None`), then 50 spread over it, then 50 at its end, where reading seeks. Beside
it stands what PyAV takes to decode and convert every frame and do nothing else. The least of the repeats counts.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import tyro

from das3r_ns.evaluation.bench.meter import metered
from das3r_ns.video import VideoConfig, read_clip
from das3r_ns.video.opening import open_video

KINDS = {
    "h264.mp4": "-c:v libx264 -preset veryfast -bf 2 -g 60 -pix_fmt yuv420p",
    "h264.avi": "-c:v libx264 -preset veryfast -bf 2 -g 60 -pix_fmt yuv420p",
    "hevc_10_bit.mov": "-c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le",
    "hdr_pq.mov": "-vf scale=out_color_matrix=bt2020nc,setparams=color_primaries=bt2020:color_trc=smpte2084:colorspace="
    "bt2020nc -c:v libx265 -preset ultrafast -x265-params log-level=none -pix_fmt yuv420p10le",
    "interlaced.ts": "-vf interlace=lowpass=0 -c:v mpeg2video -q:v 4 -flags +ilme+ildct",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -pix_fmt yuv420p",
    "animation.gif": "-vf scale=320:180",
}
"""Files and ffmpeg's arguments for them."""


@dataclass
class Options:
    """What to measure."""

    videos: tuple[Path, ...] = ()
    """Files to read instead of those that are written."""
    num_frames: int = 300
    """Length of the written clips."""
    repeats: int = 3
    """Times each is read."""


def write_clips(folder: Path, num_frames: int) -> list[Path]:
    """A clip of each kind, of a fractal that is zoomed into: detail and motion everywhere."""
    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()
    source = folder / "source.mkv"
    made = f"-f lavfi -i mandelbrot=s=1280x720:r=30 -frames:v {num_frames} -c:v libx264 -preset ultrafast -crf 10"
    subprocess.run([program, "-loglevel", "error", *made.split(), "-pix_fmt", "yuv420p", str(source)], check=True)
    for name, arguments in KINDS.items():
        command = [program, "-loglevel", "error", "-i", str(source), *arguments.split(), str(folder / name)]
        subprocess.run(command, check=True)
    return [folder / name for name in KINDS]


def decode_only(path: Path) -> None:
    """What cannot be done without: every frame decoded and converted."""
    with open_video(path) as container:
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            frame.to_ndarray(format="rgb24")


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as folder:
        videos = options.videos or write_clips(Path(folder), options.num_frames)
        print("| file | decode only, s | all frames, s | 50 frames, s | last 50, s | peak, GB |")
        print("|---|---|---|---|---|---|")
        for path in videos:
            end_s = len(read_clip(path, VideoConfig(max_frames=None))) / 30
            configs = (
                VideoConfig(max_frames=None),
                VideoConfig(max_frames=50),
                VideoConfig(max_frames=50, start_s=max(0.0, end_s - 50 / 30)),
            )
            seconds = [least(options.repeats, lambda: decode_only(path))]  # noqa: B023  (called at once)
            for config in configs:
                seconds.append(least(options.repeats, lambda: read_clip(path, config)))  # noqa: B023
            with metered() as cost:
                read_clip(path, configs[1])
            row = " | ".join(f"{value:.2f}" for value in seconds)
            print(f"| {path.name} | {row} | {cost.peak_memory_gb:.2f} |", flush=True)


def least(repeats: int, work: Callable[[], object]) -> float:
    """Least of the processor seconds that `work` takes."""
    taken = []
    for _ in range(repeats):
        start = process_time()
        work()
        taken.append(process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
