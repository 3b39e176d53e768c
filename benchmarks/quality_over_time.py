"""How good the static scene is after 10, 20, 60 and 240 seconds of training: `das3r` beside nerfstudio's splatfacto.

    python benchmarks/quality_over_time.py --clips CLIPS --only dog kitchen-dog --out quality  # predicts, then trains
    python benchmarks/quality_over_time.py --scenes SCENE ... --truths TRUTH ... --out quality
    python benchmarks/quality_over_time.py --tiny --methods das3r --scenes SCENE --truths TRUTH  # does it run?

All methods train on the same scene folders: frames, cameras, masks, seed points, held-out frames. splatfacto runs at
its own settings, made for 30 000 steps, with the predicted masks, and is looked at when its time has come:
`splatfacto`, `splatfacto-big`, and `splatfacto-mcmc` (gsplat's MCMC strategy with the settings of gsplat's trainer;
nerfstudio has no method of that). `splatfacto-fitted` is trained anew for each time, every schedule shortened to the
steps that fit. `das3r` plans for a number of steps, so each of its times is a training of its own as well.

Seconds are those of steps on a GPU that nobody else uses, without set-up, evaluation and saving. With `--parallel N`
trainings share the GPU, and every so often each has it alone for a few steps, which tells what its steps take alone;
the seconds are sums of that, and the table says so. Finished trainings are not repeated.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from gsplat.strategy import MCMCStrategy
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from training_clock import TrainingClock

from das3r_ns.evaluation.bench.baselines import SplatfactoBaseline

Method = Literal["das3r", "splatfacto", "splatfacto-big", "splatfacto-mcmc", "splatfacto-fitted"]
DAVIS = ("dog", "camel", "blackswan", "car-shadow", "libby")
FIRST_STEP_MS = {"das3r": 6.0, "splatfacto-fitted": 14.0}
"""What a step is taken to last before anything was measured."""
OPACITY_REG = SCALE_REG = 0.01
"""Of gsplat's MCMC trainer."""


@dataclass
class Row:
    """One method on one clip after some time."""

    clip: str
    method: str
    mark_s: float
    """The time that was asked for."""
    seconds: float
    steps: int
    of_steps: int
    """Steps that the schedules are made for."""
    gaussians: int
    static_psnr: float | None
    static_ssim: float | None
    static_lpips: float | None
    clean_psnr: float | None
    memory_gib: float


def main(
    scenes: tuple[Path, ...] = (),
    truths: tuple[Path, ...] = (),
    clips: Path | None = None,
    only: tuple[str, ...] = (*DAVIS, "kitchen-dog"),
    methods: tuple[Method, ...] = ("das3r", "splatfacto", "splatfacto-big", "splatfacto-mcmc"),
    marks: tuple[float, ...] = (10, 20, 60, 240),
    out: Path = Path("quality_over_time"),
    parallel: int = 1,
    limit_s: float | None = None,
    model: tuple[str, ...] = (),
    tiny: bool = False,
) -> None:
    """Train every method on every clip, write OUT/rows.json and OUT/table.md after each training.

    Args:
        scenes: scene folders, predicted before.
        truths: truth folder of each, in the same order (images/, dynamic_masks/, clean/ where it is known).
        clips: instead of them, a folder with davis/ and composited/: the clips of `only` are predicted first.
        marks: seconds of training after which the held-out frames are looked at.
        parallel: trainings at the same time on the GPU; see above what becomes of the seconds.
        limit_s: start no training, and stop those that run, after so many seconds; the table then lacks rows.
        model: settings of `das3r`'s model that are changed, NAME=VALUE, for a column of a variant.
        tiny: `das3r-lite` for two marks of a few steps; times mean nothing.
    """
    begin = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    pairs = list(zip(scenes, truths)) if clips is None else [_predicted(clips, name, out) for name in only]
    if not pairs or (clips is None and len(scenes) != len(truths)):
        raise ValueError(f"--scenes names {len(scenes)} folders and --truths {len(truths)}; they go in pairs.")
    if "splatfacto" in "".join(methods) and not torch.cuda.is_available():
        raise ValueError("splatfacto needs a CUDA device: give --methods das3r.")
    jobs = [
        {
            "scene": str(scene), "truth": str(truth), "method": method, "marks": list(marks), "model": list(model),
            "out": str(out / scene.name / "-".join((method, *model)).replace("=", "_")), "tiny": tiny,
            "locks": str(out / "locks") if parallel > 1 else None,
            "deadline": None if limit_s is None else begin + limit_s,
        }
        for scene, truth in pairs
        for method in methods
    ]  # fmt: skip

    def run(job: dict[str, Any]) -> None:
        folder = Path(job["out"])
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "done").exists() or (limit_s is not None and time.monotonic() > begin + limit_s):
            return
        with (folder / "log.txt").open("w") as log:
            code = subprocess.run([sys.executable, __file__, "--train", json.dumps(job)], stdout=log, stderr=log)
        print(f"{job['method']} on {Path(job['scene']).name}: exit status {code.returncode}", flush=True)
        _write(out, parallel)

    with ThreadPoolExecutor(parallel) as pool:
        list(pool.map(run, jobs))
    _write(out, parallel)
    print((out / "table.md").read_text(encoding="utf-8"))


def _predicted(clips: Path, name: str, out: Path) -> tuple[Path, Path]:
    truth = clips / ("composited" if (clips / "composited" / name).is_dir() else "davis") / name
    scene = out / "scenes" / name
    if not scene.is_dir():
        from das3r_ns.dataparser.cache import predict_scene
        from das3r_ns.dataparser.options import PredictionOptions

        predict_scene(truth / "images", PredictionOptions(predictor="geometric"), scene)
    return scene, truth


# --- One training ----------------------------------------------------------------------------------------------------


def train(job: dict[str, Any]) -> None:
    """All marks of one method on one clip, in this process; rows go to OUT/rows.json as they come."""
    marks = [1.0, 2.0] if job["tiny"] else job["marks"]
    folder, rows = Path(job["out"]), []

    def keep(row: Row) -> None:
        rows.append(asdict(row))
        (folder / "rows.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
        print(row, flush=True)

    if job["method"] in FIRST_STEP_MS:  # a training for each time
        milliseconds = FIRST_STEP_MS[job["method"]]
        for mark in marks:
            steps = 4 if job["tiny"] else max(100, round(1000 * mark / milliseconds))
            seconds, stopped = _train_once(job, [], steps, lambda row, mark=mark: keep(_at(row, mark)))
            if stopped:
                return
            milliseconds = 1000 * seconds / steps
    elif _train_once(job, marks, None, keep)[1]:
        return
    (folder / "done").touch()


def _at(row: Row, mark: float) -> Row:
    row.mark_s = mark
    return row


def _train_once(
    job: dict[str, Any], marks: list[float], steps: int | None, keep: Callable[[Row], None]
) -> tuple[float, bool]:
    """Train, and look at the held-out frames at each mark and at the end.

    Returns:
        Seconds of training, and whether the time of all was over before its end.
    """
    from nerfstudio.scripts.train import _set_random_seed

    config = _config(job, steps)
    _set_random_seed(0)
    config.save_config()
    torch.cuda.empty_cache()
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.save_checkpoint = lambda step: None
    clock, left = TrainingClock(job["locks"]), sorted(marks)
    look = _Look(job, trainer)
    iterate, stopped = trainer.train_iteration, []

    def row(mark: float, step: int) -> Row:
        return look(mark, clock.seconds, step, trainer._start_step + trainer.config.max_num_iterations)

    def iteration(step: int) -> Any:
        while left and clock.may_stop(step) and clock.now() >= left[0]:
            with clock.stopped():
                keep(row(left.pop(0), step))
        over = job["deadline"] is not None and time.monotonic() > job["deadline"]
        if clock.may_stop(step) and ((marks and not left) or over):
            stopped.append(over)
            trainer.stop_training = True
        with clock.step(step):
            return iterate(step)

    trainer.train_iteration = iteration
    trainer.train()
    clock.end()
    if not stopped:  # it came to its own end
        keep(row(left[0] if left else 0.0, trainer.step + 1))
    return clock.seconds, any(stopped)


def _config(job: dict[str, Any], steps: int | None) -> Any:
    from nerfstudio.configs.method_configs import all_methods

    from das3r_ns.dataparser.parser import Das3rDataParserConfig
    from das3r_ns.evaluation.bench.training import as_baseline, method_config, shorten

    method, scene, out = job["method"], Path(job["scene"]), Path(job["out"])
    if method == "das3r":
        config = method_config("das3r-lite" if job["tiny"] else method, scene, out)
        config.budget = steps
        for change in job["model"]:
            name, _, value = change.partition("=")
            setattr(config.pipeline.model, name, json.loads(value) if value[:1] in "0123456789tf-" else value)
    else:
        config = copy.deepcopy(all_methods["splatfacto-big" if method == "splatfacto-big" else "splatfacto"])
        as_baseline(config, masked=True)
        config.pipeline.datamanager.dataparser = Das3rDataParserConfig(data=scene, eval_mode="paper")
        config.pipeline.datamanager.data = scene
        config.output_dir, config.experiment_name, config.timestamp = out, method, "run"
        config.vis = "tensorboard"
        if method == "splatfacto-mcmc":
            config.pipeline.model._target = McmcBaseline
        if steps is not None:
            shorten(config, steps)
            config.max_num_iterations = steps
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = 10**9
    config.steps_per_save, config.logging.local_writer.enable = 10**9, False
    config.machine.device_type = "cuda" if torch.cuda.is_available() else "cpu"
    return config


class McmcBaseline(SplatfactoBaseline):
    """Splatfacto with gsplat's MCMC strategy and the regularisers of gsplat's own trainer."""

    def populate_modules(self) -> None:
        super().populate_modules()
        self.strategy = MCMCStrategy()  # type: ignore[assignment]
        self.strategy.absgrad = False  # type: ignore[attr-defined]  # splatfacto asks for it
        self.strategy_state = self.strategy.initialize_state()
        with torch.no_grad():
            self.gauss_params["opacities"].fill_(0.0)  # opacity 0.5

    def get_training_callbacks(self, attributes: TrainingCallbackAttributes) -> list[TrainingCallback]:
        """Splatfacto's, and MCMC's turn, which needs the learning rate of the means."""
        optimizers = attributes.optimizers
        assert optimizers is not None

        def after(step: int) -> None:
            self.strategy.step_post_backward(  # type: ignore[call-arg]
                params=self.gauss_params,
                optimizers=self.optimizers,
                state=self.strategy_state,
                step=step,
                info=self.info,
                lr=optimizers.optimizers["means"].param_groups[0]["lr"],  # type: ignore[call-arg]
            )

        def before(step: int) -> None:
            self.optimizers, self.step = optimizers.optimizers, step

        return [
            TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], before),
            TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], after),
        ]

    def get_loss_dict(self, outputs: Any, batch: Any, metrics_dict: Any = None) -> dict[str, torch.Tensor]:
        """Splatfacto's, and the pulls to small and faint Gaussians."""
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        losses["opacity_reg"] = OPACITY_REG * torch.sigmoid(self.gauss_params["opacities"]).mean()
        losses["size_reg"] = SCALE_REG * torch.exp(self.gauss_params["scales"]).mean()
        return losses


class _Look:
    """Measures the held-out frames of a trainer's model as it is."""

    def __init__(self, job: dict[str, Any], trainer: Any) -> None:
        from das3r_ns.evaluation.truth_options import TruthFiles

        self._job, self._trainer = job, trainer
        self._truth = TruthFiles(Path(job["truth"])).read()

    def __call__(self, mark: float, seconds: float, steps: int, of_steps: int) -> Row:
        from das3r_ns.evaluation.comparison import compare_images

        trainer = self._trainer
        dataset, model = trainer.pipeline.datamanager.eval_dataset, trainer.pipeline.model
        frames = [int(i) for i in dataset.metadata["frame_index"]]

        def render(frame: int) -> torch.Tensor:
            row = frames.index(frame)
            camera = dataset.cameras[row : row + 1].to(model.device)
            return model.get_outputs_for_camera(camera)["rgb"].clamp(0, 1)

        memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0
        trainer.pipeline.eval()
        with torch.no_grad():
            found = compare_images(frames, render, self._truth).summary()
        trainer.pipeline.train()
        known = {name: found[name] for name in ("static_psnr", "static_ssim", "static_lpips", "clean_psnr")}
        return Row(
            Path(self._job["scene"]).name, self._job["method"] + "".join(f" {m}" for m in self._job["model"]), mark,
            seconds, steps, of_steps, int(model.means.shape[0]), **known, memory_gib=memory,
        )  # fmt: skip


# --- The table -------------------------------------------------------------------------------------------------------


def _write(out: Path, parallel: int) -> None:
    rows = [Row(**row) for file in sorted(out.glob("*/*/rows.json")) for row in json.loads(file.read_text())]
    (out / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=2), encoding="utf-8")
    (out / "table.md").write_text(table(rows, parallel), encoding="utf-8")


def table(rows: list[Row], parallel: int = 1) -> str:
    """Static PSNR / SSIM / clean PSNR by method and time for each clip, then means over clips that all methods have."""
    marks = sorted({row.mark_s for row in rows if row.mark_s > 0})
    how = f"; {parallel} trainings at a time, seconds as each would take alone" if parallel > 1 else ""
    lines = [f"Static PSNR, dB / SSIM / clean PSNR, dB (seconds, steps){how}.", ""]
    heads = [f"{mark:g} s" for mark in marks]
    for clip in sorted({row.clip for row in rows}):
        lines += [f"| {clip} | " + " | ".join(heads) + " |", "|---" * (len(marks) + 1) + "|"]
        for method in dict.fromkeys(row.method for row in rows):
            found = {row.mark_s: row for row in rows if (row.clip, row.method) == (clip, method)}
            cells = [_cell(found[mark]) if mark in found else "" for mark in marks]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["| mean static PSNR, dB | " + " | ".join(heads) + " |", "|---" * (len(marks) + 1) + "|"]
    for method in dict.fromkeys(row.method for row in rows):
        cells = []
        for mark in marks:
            of_mark = [row for row in rows if row.mark_s == mark and row.static_psnr is not None]
            # Means of different clips cannot be compared: those that every method with this mark has.
            present = {m: {row.clip for row in of_mark if row.method == m} for m in {row.method for row in of_mark}}
            common = set.intersection(*present.values()) if present else set()
            values = [row.static_psnr for row in of_mark if row.method == method and row.clip in common]
            cells.append(f"{sum(values) / len(values):.2f} ({len(values)})" if values else "")  # type: ignore[arg-type]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Row) -> str:
    def told(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    values = f"{told(row.static_psnr, 2)} / {told(row.static_ssim, 3)} / {told(row.clean_psnr, 2)}"
    return f"{values} ({row.seconds:.0f}, {row.steps})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        train(json.loads(sys.argv[2]))
    else:
        tyro.cli(main)
