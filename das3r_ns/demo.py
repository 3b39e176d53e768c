"""`das3r demo`: from a video to a measured splat, by the same commands that a user would type.

Without `--data` the video is a synthetic clip whose truth is known, and the table says how near we came to it.
"""

import shutil
import sys
import time
from pathlib import Path
from typing import Any, Literal

import psutil
from rich import get_console
from rich.table import Table

from das3r_ns.files.json_files import write_json
from das3r_ns.runtime.children import run_child


def demo(
    out: Path = Path("demo_output"),
    data: Path | None = None,
    method: Literal["auto", "das3r", "das3r-lite"] = "auto",
    num_frames: int = 40,
    seed: int = 0,
) -> dict[str, float]:
    """Make a synthetic clip (or take yours), train on it, evaluate, render the static video, export the PLY.

    Args:
        out: folder for everything that is made.
        data: your own video, folder of images or scene folder; without it a synthetic clip with known truth is made.
        method: `auto` takes das3r where there is a CUDA GPU, else das3r-lite.
        num_frames: length of the synthetic clip.
        seed: furniture, textures and paths of the synthetic clip.

    Returns:
        The figures of the table by name.

    Raises:
        FileNotFoundError: `data` does not exist.
        RuntimeError: a stage failed; its output above says why.
    """
    if data is not None and not data.exists():
        raise FileNotFoundError(f"--data {data} does not exist. Give a video file or a folder of images.")
    if method == "auto":
        import torch

        method = "das3r" if torch.cuda.is_available() else "das3r-lite"
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    truth = None
    if data is None:
        with _Stage("synthetic clip", seconds):
            truth = _make_clip(out / "clip", num_frames, seed)
        data = truth / "video.mp4"
    name = data.absolute().stem
    run = out / "outputs" / name / method / "run"
    with _Stage("ns-train (prediction included)", seconds):
        _call(
            *("ns-train", method, "--data", str(data), "--output-dir", str(out / "outputs")),
            *("--experiment-name", name, "--timestamp", "run", "--vis", "tensorboard"),
            *("das3r-data", "--cache-dir", str(out / "scenes")),
        )
    config = run / "config.yml"
    figures: dict[str, float] = {}
    if truth is not None:
        with _Stage("das3r eval", seconds):
            figures = _evaluate(config, truth, out / "evaluation")
    with _Stage("das3r render-static", seconds):
        video = _render(config, out / "static.mp4")
    with _Stage("ns-export gaussian-splat", seconds):
        _call("ns-export", "gaussian-splat", "--load-config", str(config), "--output-dir", str(out / "export"))
    sheet = _contact_sheet(config, video, truth, out / "contact_sheet.png")
    figures["peak memory, GiB"] = _peak_memory_gib()
    _print_table(figures, seconds)
    results = {"figures": figures, "seconds": seconds, "method": method}
    write_json(out / "demo.json", results)
    get_console().print(
        f"static video beside the input  {video}\n"
        f"splat for any viewer (PLY)     {out / 'export' / 'splat.ply'}\n"
        f"contact sheet                  {sheet}\n"
        f"report, open it in a browser   {run / 'report.html'}\n"
        f"look around in a browser       ns-viewer --load-config {config}",
        soft_wrap=True,
        highlight=False,
    )
    return figures


class _Stage:
    """Announces a stage and notes the seconds it took."""

    def __init__(self, name: str, seconds: dict[str, float]) -> None:
        self.name, self.seconds = name, seconds

    def __enter__(self) -> None:
        get_console().rule(self.name, align="left")
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self.name] = round(time.perf_counter() - self.start, 1)


def _make_clip(folder: Path, num_frames: int, seed: int) -> Path:
    from das3r_ns.synthetic import SyntheticConfig, make_clip, write_clip

    return write_clip(make_clip(SyntheticConfig(num_frames=num_frames, seed=seed)), folder)


def _call(command: str, *arguments: str) -> None:
    """Run a command of this environment, its output shown as it comes."""
    path = shutil.which(command, path=str(Path(sys.executable).parent)) or shutil.which(command)
    if path is None:
        raise RuntimeError(f"the command {command} is missing: is nerfstudio installed in this environment?")
    get_console().print(f"$ {command} {' '.join(arguments)}", style="dim", soft_wrap=True)
    code = run_child([path, *arguments])
    if code != 0:
        raise RuntimeError(f"{command} stopped with exit code {code}; its output above says why.")


def _evaluate(config: Path, truth: Path, out: Path) -> dict[str, float]:
    """Measure the run and pick the figures of the table; after training where training changed them."""
    from das3r_ns.evaluation.evaluate import evaluate
    from das3r_ns.evaluation.truth_options import TruthFiles

    metrics = evaluate(load_config=config, truth=TruthFiles(truth), out=out, refine_test_poses=False)
    poses, masks, psnr = (_after_training(metrics[part]) for part in ("poses", "masks", "psnr"))
    return {
        "ATE, % of the path": poses["ate_percent_of_path"],
        "focal length error, %": poses["focal_error_percent"],
        "mask J (intersection over union)": masks["j_mean"],
        "static PSNR, dB": psnr["static_psnr"],
        "clean PSNR behind the moving objects, dB": psnr["clean_psnr"],
        "Gaussians": float(metrics["num_gaussians"]),
    }


def _after_training(variants: dict[str, Any]) -> dict[str, Any]:
    return variants.get("trained") or next(iter(variants.values()))


def _render(config: Path, path: Path) -> Path:
    from das3r_ns.render.static_video import render_static

    return render_static(load_config=config, out=path, side_by_side=True).path


def _contact_sheet(config: Path, video: Path, truth: Path | None, path: Path) -> Path:
    """Input, what moves, static render, and the ground truth behind the moving objects where it is known."""
    import cv2
    import numpy as np

    from das3r_ns.dataparser.cache import cached_scene
    from das3r_ns.evaluation.figures import Sheet, spread_evenly
    from das3r_ns.runs.loading import read_run_config
    from das3r_ns.scene import read_scene
    from das3r_ns.video.clip import read_clip
    from das3r_ns.video.config import VideoConfig

    manager: Any = read_run_config(config).pipeline.datamanager
    scene = read_scene(cached_scene(manager.data, manager.dataparser, manager.dataparser.cache_dir))
    pairs = read_clip(video, VideoConfig(max_frames=None, longest_side=None)).frames
    sheet = Sheet(("input", "what moves", "static render", "truth")[: 3 if truth is None else 4])
    half = pairs.shape[2] // 2
    for i in spread_evenly(len(pairs), 3):
        seen, render = pairs[i, :, :half].numpy(), pairs[i, :, half:].numpy()
        moving = cv2.resize(scene.dynamic_prob[i].numpy(), seen.shape[1::-1])[..., None]
        panels = [seen, (seen * (1 - 0.8 * moving) + moving * (204, 30, 30)).clip(0, 255).astype(np.uint8), render]
        if truth is not None:
            panels.append(cv2.imread(str(truth / "clean" / f"{i:05d}.png"))[..., ::-1])
        sheet.add(f"frame {i}:", panels)
    return sheet.save(path)


def _peak_memory_gib() -> float:
    """Largest resident set of this process and of those it started (on Windows, of this process alone)."""
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 2**30, 2)
    import resource

    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(own, children) / (2**30 if sys.platform == "darwin" else 2**20), 2)  # bytes there, KiB on Linux


def _print_table(figures: dict[str, float], seconds: dict[str, float]) -> None:
    table = Table("measured", "value", title="das3r demo")
    table.columns[1].justify = "right"
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    table.add_section()
    for name, value in seconds.items():
        table.add_row(f"{name}, seconds", f"{value:.1f}")
    get_console().print(table)
