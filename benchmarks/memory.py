"""Peak memory of `das3r predict` on a CPU, for clips whose frames are all different.

    python benchmarks/memory.py                              # 150 frames, as read by default, and 300
    python benchmarks/memory.py --num-frames 40 80 --size 240 426

The clip is synthetic: a camera that moves through a room in which objects move, of which no frame repeats another. It
is written as a folder of images by this process, which takes about a second a frame at 854x480; frames that are there
already are taken instead with `--frames FOLDER`. The command that reads them is another
process, and its peak is the largest resident memory that the operating system saw of it, libraries included.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import tyro

from das3r_ns.synthetic import SyntheticConfig, make_clip

GIB = 2**30
BETWEEN = """
import os, resource, subprocess, sys
log = int(sys.argv[1])
code = subprocess.call(sys.argv[2:], stdout=log, stderr=log)
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@dataclass
class Options:
    """What to measure."""

    num_frames: tuple[int, ...] = (150, 300)
    """Lengths of the clip."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the frames."""
    frames: Path | None = None
    """Folder of images to predict, in the place of the synthetic clip; `size` is what is written into the table."""
    threads: int = 2
    """Processor threads."""
    arguments: tuple[str, ...] = ()
    """More of the command's own, such as --video.longest-side 640."""


def main(options: Options) -> None:
    height, width = options.size
    print(
        "| size | frames | posed | wall, s | peak, GiB | of it the frames, GiB |",
        "|---" * 6 + "|",
        sep="\n",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="das3r-memory-") as place:
        folder = Path(place)
        for n in options.num_frames:
            images = folder / f"images_{n}"
            images.mkdir()
            if options.frames is None:
                write_synthetic(images, n, height, width)
            else:
                for path in sorted(options.frames.iterdir())[:n]:
                    shutil.copyfile(path, images / path.name)
            out = folder / f"scene_{n}"
            asked = [
                "predict",
                "--data",
                str(images),
                "--out",
                str(out),
                "--video.max-frames",
                str(n),
                *options.arguments,
            ]
            start = time.perf_counter()
            code, peak = run([sys.executable, "-m", "das3r_ns.cli", *asked], options.threads, folder / "log.txt")
            seconds = time.perf_counter() - start
            if code:
                sys.exit((folder / "log.txt").read_text(encoding="utf-8")[-3000:])
            known = json.loads((out / "predictor.json").read_text(encoding="utf-8"))["pose_known"]
            frames = n * height * width * 3 / GIB
            print(
                f"| {width}x{height} | {n} | {sum(known)} | {seconds:.0f} | {peak / GIB:.2f} | {frames:.2f} |",
                flush=True,
            )


def write_synthetic(folder: Path, n: int, height: int, width: int) -> None:
    """Images of a synthetic clip."""
    clip = make_clip(SyntheticConfig(num_frames=n, height=height, width=width))
    for i, frame in enumerate(clip.frames):
        cv2.imwrite(str(folder / f"{i:05d}.png"), frame.numpy()[..., ::-1])


def run(command: list[str], threads: int, log: Path) -> tuple[int, int]:
    """Exit status of a command and its peak of resident memory in bytes.

    The peak that Linux keeps of a process begins with the peak of the one that started it, here of one that has drawn
    a clip: a small process between the two starts the command.
    """
    settings = {**os.environ, "OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads)}
    with log.open("wb") as file:
        answer = subprocess.run(
            [sys.executable, "-S", "-c", BETWEEN, str(file.fileno()), *command],
            env=settings, pass_fds=[file.fileno()], stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
    code, peak = map(int, answer.stdout.split())
    return code, peak * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
