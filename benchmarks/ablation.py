"""What each part of `das3r` is worth: the same scene folders, one part changed at a time, one table.

    python benchmarks/ablation.py --scenes SCENE ... --truths TRUTH ... --out ablation
    python benchmarks/ablation.py --help

A scene folder comes from `das3r predict`; a truth folder has images/, dynamic_masks/ and, where there is one, clean/.
Each variant is an `ns-train` command and `das3r eval`'s measures of its result. Finished runs are not repeated, so an
interrupted table is continued by the same command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

MODEL = "--pipeline.model."
REFINED = (f"{MODEL}camera-optimizer.mode", "quaternion")

VARIANTS: dict[str, tuple[str, ...]] = {
    "das3r": (),
    "das3r-paper": (),
    "maps fixed as predicted": (f"{MODEL}staticness.learn", "off"),
    "no prior on the maps": (f"{MODEL}staticness.prior-weight", "0.0"),
    "weak prior on the maps": (f"{MODEL}staticness.prior-weight", "0.3"),
    "maps grown by 1.25 %": (f"{MODEL}staticness.dilate", "0.0125"),
    "cautious maps": (f"{MODEL}staticness.caution", "2.0"),
    "cut at 0.7": (f"{MODEL}staticness.cut", "0.7"),
    "no cut": (f"{MODEL}staticness.cut", "0.0"),
    "re-marking": (f"{MODEL}remarking.at-steps", "1000", "2000", "3000"),
    "published loss": (f"{MODEL}loss", "published"),
    "no densification": (f"{MODEL}densify", "False"),
    "cameras refined": REFINED,
    "cameras and focal length refined": (*REFINED, f"{MODEL}camera-optimizer.refine-focal", "True"),
    "cameras refined above 26 dB": (*REFINED, f"{MODEL}camera-optimizer.min-psnr", "26.0"),
    "no exposure": (f"{MODEL}exposure", "False"),
    "no motion blur": (f"{MODEL}motion-blur", "False"),
    "nothing where nothing is seen": (f"{MODEL}hidden.weight", "0.0"),
    "depth supervised": (f"{MODEL}depth-weight", "0.1"),
    "antialiased": (f"{MODEL}rasterize-mode", "antialiased"),
    "black background": (f"{MODEL}background-color", "black"),
    "harmonics of degree 0": (f"{MODEL}sh-degree", "0"),
    "harmonics of degree 3": (f"{MODEL}sh-degree", "3"),
    "full size from the start": (f"{MODEL}num-downscales", "0"),
    "start opacity 1/frames": (f"{MODEL}start.opacity", "None"),
    "start size of a pixel": (f"{MODEL}start.scale", "pixel"),
    "opacity reset every 1000": (f"{MODEL}reset-alpha-every", "10"),
    "250 000 Gaussians": (f"{MODEL}max-gaussians", "250000", "--pipeline.datamanager.dataparser.max-points", "200000"),
    "1 000 000 Gaussians": (
        f"{MODEL}max-gaussians",
        "1000000",
        "--pipeline.datamanager.dataparser.max-points",
        "600000",
    ),
}
"""Flags that make each variant out of the method it is named after, `das3r` for all but the method names."""


@dataclass(frozen=True)
class Row:
    """One variant on one clip."""

    variant: str
    clip: str
    numbers: dict[str, float | None]
    """`paper_psnr`, `static_psnr`, `clean_psnr` in dB, `gaussians`, `seconds` of training, `memory_gib` on the GPU."""


COLUMNS = ("paper_psnr", "static_psnr", "clean_psnr", "gaussians", "seconds", "memory_gib")


def main(
    scenes: tuple[Path, ...],
    truths: tuple[Path, ...],
    out: Path = Path("ablation"),
    method: str = "das3r",
    only: tuple[str, ...] = (),
    eval_mode: str = "paper",
    extra: tuple[str, ...] = (),
) -> None:
    """Train and measure every variant on every clip; write OUT/table.md and OUT/table.json after each.

    Args:
        scenes: scene folders.
        truths: truth folder of each scene, in the same order.
        method: method that the variants start from.
        only: names of the variants to run; all when left out.
        eval_mode: which frames are held out and measured; `all` measures the training frames.
        extra: flags for every run, such as `--max-num-iterations 500`; put last, after `--extra`.
    """
    if len(scenes) != len(truths) or not scenes:
        raise ValueError(f"--scenes names {len(scenes)} folders and --truths {len(truths)}; they go in pairs.")
    unknown = set(only) - set(VARIANTS)
    if unknown:
        raise ValueError(f"no variant is called {sorted(unknown)}. There are: {', '.join(VARIANTS)}")
    rows: list[Row] = []
    for name in only or tuple(VARIANTS):
        for scene, truth in zip(scenes, truths):
            rows.append(_row(name, scene, truth, out, method, eval_mode, extra))
            _write(rows, out)
    print((out / "table.md").read_text(encoding="utf-8"))


def _row(variant: str, scene: Path, truth: Path, out: Path, method: str, eval_mode: str, extra: tuple[str, ...]) -> Row:
    folder = out / scene.name / "".join(c if c.isalnum() else "_" for c in variant)
    finished = folder / "numbers.json"
    if finished.is_file():
        return Row(variant, scene.name, json.loads(finished.read_text(encoding="utf-8")))
    started_from = variant if variant.startswith("das3r-") else method
    command = [
        "ns-train", started_from, "--data", str(scene), "--output-dir", str(folder), "--experiment-name", "run",
        "--timestamp", "now", "--vis", "tensorboard", "--logging.local-writer.enable", "False",
        *VARIANTS[variant], *extra,
        "--pipeline.datamanager.dataparser.eval-mode", eval_mode,
    ]  # fmt: skip
    print(" ".join(command), flush=True)
    begin = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--train", *command[1:]], check=True)
    numbers = {
        "wall_seconds": time.perf_counter() - begin,
        **json.loads((folder / "trained.json").read_text(encoding="utf-8")),
    }
    numbers.update(_measured(folder / "run" / started_from / "now" / "config.yml", truth, folder))
    finished.write_text(json.dumps(numbers, indent=2), encoding="utf-8")
    return Row(variant, scene.name, numbers)


def train() -> None:
    """The `ns-train` command in this process, so that the time of the steps alone and the memory can be told."""
    import torch
    from nerfstudio.engine.trainer import Trainer
    from nerfstudio.scripts import train as command

    seconds = {}
    steps = Trainer.train

    def timed(self: Trainer) -> None:
        begin = time.perf_counter()
        steps(self)
        seconds["seconds"] = time.perf_counter() - begin

    Trainer.train = timed  # type: ignore[method-assign]
    command.entrypoint()
    seconds["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    folder = Path(sys.argv[sys.argv.index("--output-dir") + 1])
    (folder / "trained.json").write_text(json.dumps(seconds), encoding="utf-8")


def _measured(config: Path, truth: Path, folder: Path) -> dict[str, Any]:
    from das3r_ns.evaluation.evaluate import evaluate
    from das3r_ns.evaluation.truth_options import TruthFiles

    files = TruthFiles(truth)
    found = evaluate(
        load_config=config, truth=files, parts=("psnr",), out=folder / "evaluation", refine_test_poses=False
    )
    # Test cameras moved like their neighbours, where training moved those; no test image is used for it.
    images = found["psnr"].get("trained", found["psnr"]["predicted"])
    return {
        "gaussians": found["num_gaussians"],
        **{name: images.get(name) for name in ("paper_psnr", "static_psnr", "clean_psnr")},
    }


def _write(rows: list[Row], out: Path) -> None:
    (out / "table.json").write_text(json.dumps([row.__dict__ for row in rows], indent=2), encoding="utf-8")
    lines = [f"| variant | clip | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for row in rows:
        cells = [row.numbers.get(column) for column in COLUMNS]
        told = ["" if v is None else f"{v:.0f}" if abs(v) > 1000 else f"{v:.2f}" for v in cells]
        lines.append(f"| {row.variant} | {row.clip} | {' | '.join(told)} |")
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        del sys.argv[1]
        train()
    else:
        tyro.cli(main)
