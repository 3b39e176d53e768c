"""One sequence through its stages: prepared, predicted, trained, measured. Runs in a process of its own, so that what
it costs can be measured and what kills it kills nothing else.

Every stage leaves `results/STAGE.json` in the sequence's folder: settings, cost, and values or the reason why there
are none. A stage whose settings have not changed and that did not fail is not repeated: that is how a benchmark goes
on after an interruption. `python -m das3r_ns.evaluation.bench.worker` reads a pickled `Job` from its standard input.
"""

import json
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich import get_console

from das3r_ns import __version__
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.dataparser.predict import predict
from das3r_ns.datasets import TruthClip
from das3r_ns.evaluation.bench.meter import metered
from das3r_ns.evaluation.bench.prepared import prepare, prepared_clip
from das3r_ns.evaluation.bench.sets import FrameChoice, SequenceSource
from das3r_ns.evaluation.bench.training import BASELINES, train
from das3r_ns.evaluation.bench.true_masks import write_with_true_masks
from das3r_ns.evaluation.evaluate import Evaluation
from das3r_ns.evaluation.runs import load_run
from das3r_ns.files.json_files import to_jsonable, write_json
from das3r_ns.predictor.registry import PredictorOptions, options_of, settings_of
from das3r_ns.scene import read_scene
from das3r_ns.video.config import VideoConfig

Stage = Literal["masks", "poses", "psnr"]
MAKE_THE_SCENE = ("prepare", "predict", "true-masks")
"""Stages, in order, that all later ones rest on."""


@dataclass(frozen=True)
class Job:
    """One sequence and what to do with it."""

    source: SequenceSource
    frames: FrameChoice
    longest_side: int | None
    stages: tuple[Stage, ...]
    predictors: PredictorOptions
    """With what `auto` means."""
    methods: tuple[str, ...]
    """What is trained, for the stage `psnr`."""
    steps: int | None
    baseline_steps: int | None
    """Of the baselines."""
    out: Path
    """Folder of the sequence."""
    again: bool
    """Repeat everything, whatever is there."""
    true_masks: bool = False
    """Put the true masks in place of the predicted ones before anything is trained or measured."""

    def steps_of(self, method: str) -> int | None:
        """Training steps of a method; None for its own number."""
        return self.baseline_steps if method in BASELINES else self.steps


def results_folder(out: Path) -> Path:
    """Where the stages of a sequence leave what they found."""
    return out / "results"


def run_job(job: Job) -> None:
    """Take a sequence through its stages. Nothing is raised: what fails is written down as the stage's result."""
    job.out.mkdir(parents=True, exist_ok=True)
    stages = _Stages(job)
    truth = stages.run("prepare", stages.prepare_settings(), lambda: _prepare(job))
    if truth is None or stages.run("predict", stages.predict_settings(), lambda: _predict(job)) is None:
        return
    if job.true_masks and stages.run("true-masks", stages.scene_settings(), lambda: _take_true_masks(job)) is None:
        return
    for part in ("masks", "poses"):
        if part in job.stages:
            stages.run(part, stages.scene_settings(), lambda part=part: _measure_scene(job, part))
    for method in job.methods if "psnr" in job.stages else ():
        settings = {**stages.scene_settings(), "method": method, "steps": job.steps_of(method)}
        if stages.run(f"train-{method}", settings, lambda method=method: _train(job, method)) is not None:
            stages.run(f"psnr-{method}", settings, lambda method=method: _measure_run(job, method))


class _Stages:
    """Runs stages, keeps what they gave, and knows what need not be repeated."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._redone = False
        """Once one stage was repeated, so must be all that come after it."""

    def prepare_settings(self) -> dict[str, Any]:
        job = self._job
        return {"source": asdict(job.source), "frames": asdict(job.frames), "longest_side": job.longest_side}

    def predict_settings(self) -> dict[str, Any]:
        job = self._job
        name = job.predictors.predictor
        own = asdict(settings_of(job.predictors, name))
        return {**self.prepare_settings(), "predictor": name, "predictor_settings": own}

    def scene_settings(self) -> dict[str, Any]:
        """Of the scene that is trained on and measured."""
        return {**self.predict_settings(), **({"true_masks": True} if self._job.true_masks else {})}

    def run(self, name: str, settings: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any] | None:
        """Values of a stage, from an earlier time or from now; None if it failed."""
        path = results_folder(self._job.out) / f"{name}.json"
        kept = None if self._job.again or self._redone else _read(path)
        if kept is not None and kept["settings"] == to_jsonable(settings) and "values" in kept:
            return kept["values"]
        self._redone = self._redone or name in MAKE_THE_SCENE
        path.parent.mkdir(exist_ok=True)
        self._forget_from(name)
        record: dict[str, Any] = {"settings": to_jsonable(settings), "das3r_ns_version": __version__}
        get_console().rule(f"{self._job.source.name}: {name}")
        try:
            with metered() as cost:
                values = work()
        except Exception as error:  # whatever it is, it becomes this sequence's row
            traceback.print_exc()
            write_json(path, {**record, "error": f"{type(error).__name__}: {error}"})
            return None
        write_json(path, {**record, "cost": asdict(cost), "values": values})
        return values

    def _forget_from(self, name: str) -> None:
        """Remove what a stage, and all that rest on it, left before: should this run be interrupted, the next must not
        take it for new."""
        folder = results_folder(self._job.out)
        (folder / f"{name}.json").unlink(missing_ok=True)
        if name in MAKE_THE_SCENE:
            stay = MAKE_THE_SCENE[: MAKE_THE_SCENE.index(name)]
            for path in folder.glob("*.json"):
                if path.stem not in stay:
                    path.unlink()


def _prepare(job: Job) -> dict[str, Any]:
    clip = job.source.read()
    prepared = prepare(clip, job.frames.of(len(clip)), job.longest_side, _truth_folder(job))
    return {
        "frames": len(prepared),
        "has_masks": prepared.dynamic_mask is not None,
        "has_poses": prepared.T_world_camera is not None,
    }


def _predict(job: Job) -> dict[str, Any]:
    options = PredictionOptions(
        video=VideoConfig(max_frames=None, longest_side=None),
        predictor=job.predictors.predictor,
        **options_of(job.predictors),
    )
    folder = job.out / "scene"
    predict(_truth_folder(job) / "images", folder, options, overwrite=True)
    scene = read_scene(folder)
    return {
        "predictor": _predictor(scene.provenance, job.predictors.predictor),
        "image_size": list(scene.image_size),
        "frames_posed": int(scene.pose_known.sum()),
        "focal_px": float(scene.K[:, 0, 0].mean()),
        "stage_seconds": scene.provenance.get("seconds"),
    }


def _take_true_masks(job: Job) -> dict[str, Any]:
    return write_with_true_masks(job.out / "scene", _truth(job), _scene_folder(job))


def _predictor(provenance: dict[str, Any], asked: str) -> str:
    """What the table calls the predictor of a scene folder: its name, and what refined its masks."""
    name = provenance.get("predictor", asked)
    refiner = provenance.get("settings", {}).get("masks", {}).get("refiner", "none")
    return name if refiner == "none" else f"{name} + {refiner}"


def _measure_scene(job: Job, part: Stage) -> dict[str, Any]:
    evaluation = Evaluation(_truth(job), _figures(job))
    evaluation.measure((part,), _scene_folder(job), None)
    return evaluation.results[part]["predicted"]


def _train(job: Job, method: str) -> dict[str, Any]:
    return {"config": str(train(method, _scene_folder(job), job.out / "runs", job.steps_of(method)))}


def _measure_run(job: Job, method: str) -> dict[str, Any]:
    trained = _read(results_folder(job.out) / f"train-{method}.json")
    assert trained is not None
    run = load_run(Path(trained["values"]["config"]))
    evaluation = Evaluation(_truth(job), _figures(job) / method)
    assert evaluation.folder is not None
    evaluation.folder.mkdir(parents=True, exist_ok=True)
    evaluation.measure(("psnr",), _scene_folder(job), run)
    values: dict[str, Any] = {"psnr": evaluation.results["psnr"], "num_gaussians": run.num_gaussians, **run.training}
    if _truth(job).T_world_camera is not None and run.moves_test_cameras:
        evaluation.measure(("poses",), _scene_folder(job), run)
        values["poses"] = evaluation.results["poses"].get("trained")
    return values


def _truth_folder(job: Job) -> Path:
    return job.out / "truth"


def _scene_folder(job: Job) -> Path:
    return job.out / ("scene_with_true_masks" if job.true_masks else "scene")


def _figures(job: Job) -> Path:
    folder = job.out / "figures"
    folder.mkdir(exist_ok=True)
    return folder


def _truth(job: Job) -> TruthClip:
    return prepared_clip(_truth_folder(job))


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    run_job(pickle.load(sys.stdin.buffer))
