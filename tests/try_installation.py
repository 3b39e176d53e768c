"""The short test of an installation: every command once, on a clip of sixteen small frames.

    python tests/try_installation.py

Runs the programs of the environment that runs it, in a temporary folder; needs nothing of the repository besides this
file and no test tools. Prints a line per command with its seconds, then the versions; exit code 1 at the first command
that fails, with its output. Not collected by pytest: `docs/install.md` has what it gave with which versions.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

FRAMES, HEIGHT, WIDTH, STEPS = 16, 144, 256, 20
PACKAGES = ("torch", "gsplat", "nerfstudio", "numpy", "pillow", "pycolmap", "numba", "open3d")


def main() -> None:
    """Run everything."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="das3r-short-") as folder:
        os.chdir(folder)
        run("python", "-c", MAKE_CLIP)
        run("das3r", "doctor")
        run("das3r", "predict", "--data", "clip/video.mp4", "--out", "scene")
        run("ns-train", "das3r-lite", "--data", "scene", "--max-num-iterations", str(STEPS), "--vis", "tensorboard")
        config = str(next(Path("outputs").glob("*/das3r-lite/*/config.yml")))
        run("ns-eval", "--load-config", config, "--output-path", "eval.json")
        run("ns-export", "gaussian-splat", "--load-config", config, "--output-dir", "exports")
        run("das3r", "render-static", "--load-config", config, "--out", "static.mp4")
        psnr = json.loads(Path("eval.json").read_text(encoding="utf-8"))["results"]["psnr"]
        splat = next(Path("exports").glob("*.ply")).stat().st_size
        assert Path("static.mp4").stat().st_size > 1000, "the static video is empty"
    versions = " ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    python = ".".join(map(str, sys.version_info[:3]))
    print(
        f"passed: Python {python} {versions}; PSNR {psnr:.1f}, PLY {splat / 1e6:.1f} MB, "
        f"{time.perf_counter() - started:.0f} s"
    )


def run(program: str, *arguments: str) -> None:
    """Run a program that lies beside this Python."""
    scripts = Path(sys.executable).parent
    command = [sys.executable if program == "python" else str(scripts / program), *arguments]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8")
    name = " ".join(word for word in (program, *arguments[:2]) if len(word) < 20)
    print(f"{time.perf_counter() - start:6.1f} s  {name}", flush=True)
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{name} ended with exit code {done.returncode}")


MAKE_CLIP = f"""
from pathlib import Path
from das3r_ns.synthetic import SyntheticConfig, make_clip, write_clip
config = SyntheticConfig(num_frames={FRAMES}, height={HEIGHT}, width={WIDTH})
write_clip(make_clip(config), Path("clip"))
"""

if __name__ == "__main__":
    main()
