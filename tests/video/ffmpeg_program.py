"""The ffmpeg program, as a writer of files that PyAV does not write and as a second decoder; and frames to give it."""

import subprocess

import numpy as np
import pytest

imageio_ffmpeg = pytest.importorskip(
    "imageio_ffmpeg", reason="the ffmpeg program comes with the package imageio-ffmpeg"
)

WIDTH, HEIGHT = 128, 96


def moving_frames(count: int, speed: float = 1.0) -> np.ndarray:
    """Frames [n, h, w, 3] of 8-bit RGB in which everything moves, smooth enough for every codec; the square in the
    corner says the number of the frame."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frames = []
    for i in range(count):
        shift = speed * i
        waves = [np.sin((columns + 5 * shift) / 9 + c) + np.sin((rows - 3 * shift) / 7 + 2 * c) for c in range(3)]
        frames.append(np.stack([120 + 45 * wave for wave in waves], axis=-1))
        frames[-1][:16, :16] = 20 + 216 * i / count
    return np.round(frames).clip(0, 255).astype(np.uint8)


def ffmpeg(arguments: list, given: bytes = b"") -> subprocess.CompletedProcess:
    """Run the program; its error is the test's."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    done = subprocess.run([program, "-hide_banner", "-y", *arguments], input=given, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-1500:]
    return done


def encode(path, frames: np.ndarray, arguments: str, rate: int = 25):
    """Write frames [n, h, w, 3] of 8 or 16 bits a channel with ffmpeg's arguments for the output."""
    pixels = "rgb24" if frames.dtype == np.uint8 else "rgb48le"
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    raw = f"-f rawvideo -pix_fmt {pixels} -s {size} -r {rate} -i pipe:0"
    ffmpeg([*raw.split(), *arguments.split(), str(path)], frames.tobytes())
    return path


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels between images of 8 bits."""
    return 10 * np.log10(255**2 / max(1e-9, float(((a.astype(np.float32) - b) ** 2).mean())))
