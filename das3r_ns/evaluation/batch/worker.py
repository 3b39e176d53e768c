"""One clip of a batch through its stages. Runs in a process of its own, so that what kills it kills nothing else.

Every stage leaves `results/STAGE.json` in the clip's folder: its settings, seconds, and values or the reason why there
are none. A stage whose settings have not changed and that did not fail is not repeated, unless one before it was: that
is how a batch goes on after an interruption. `python -m das3r_ns.evaluation.batch.worker` reads a pickled `ClipJob`
from its standard input.
"""

import json
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich import get_console

from das3r_ns import __version__
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.files.json_files import to_jsonable, write_json
from das3r_ns.files.locks import only_holder

STAGES = ("predict", "train", "image", "render", "export")
"""In order. All after `train` need it and not one another: one that fails leaves the others be."""


VALUES_OF_RECORDS = {
    "scene": str, "predictor": str, "frames": int, "frames_posed": int, "moving_share": (int, float), "quality": dict,
    "distrusted_frames": int, "config": str, "image": str, "static_psnr_of_training_frames": (int, float),
    "num_gaussians": int, "video": str, "unseen": (int, float), "splat": str,
}  # fmt: skip
"""Names and kinds of the values that stages find."""


@dataclass(frozen=True)
class ClipJob:
    """One clip and what to do with it."""

    name: str
    source: Path
    """Video, folder of images, nerfstudio dataset or scene folder."""
    options: PredictionOptions
    """With what `auto` means."""
    method: str
    steps: int | None
    """Of the training; None for the method's own number."""
    stages: tuple[str, ...]
    out: Path
    """Folder of the clip."""
    again: bool
    """Repeat everything, whatever is there."""


def results_of(out: Path) -> dict[str, dict[str, Any]]:
    """What the stages of a clip wrote, by stage."""
    found = {}
    for path in sorted((out / "results").glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):  # half written by a machine that lost its power
            continue
        if _is_whole(record):  # else it is as if the stage had not run
            found[path.stem] = record
    return found


def _is_whole(record: Any) -> bool:
    """Whether what a stage wrote is of the kinds that it writes."""
    if not isinstance(record, dict):
        return False
    said = {**VALUES_OF_RECORDS, "seconds": (int, float), "error": str, "values": dict}
    values = record.get("values", {})
    named = (record, values) if isinstance(values, dict) else (record,)
    return all(d.get(name) is None or isinstance(d[name], kind) for d in named for name, kind in said.items())


def run_clip(job: ClipJob) -> None:
    """Take a clip through its stages. Nothing is raised: what fails is written down as the stage's result."""
    job.out.mkdir(parents=True, exist_ok=True)
    # A batch that was killed outright may have left a worker at this clip: what it still finishes is kept.
    with only_holder(job.out / ".lock"):
        _run_stages(job)


def _run_stages(job: ClipJob) -> None:
    work: dict[str, Callable[[ClipJob], dict[str, Any]]] = {
        "predict": predict_stage,
        "train": train_stage,
        "image": image_stage,
        "render": render_stage,
        "export": export_stage,
    }
    kept = {} if job.again else results_of(job.out)
    redone = False
    for stage in (stage for stage in STAGES if stage in job.stages):
        settings = to_jsonable(settings_of_stage(job, stage))
        before = kept.get(stage)
        if not redone and before is not None and before.get("settings") == settings and "values" in before:
            continue
        redone = redone or stage in ("predict", "train")
        path = job.out / "results" / f"{stage}.json"
        path.parent.mkdir(exist_ok=True)
        for later in STAGES[STAGES.index(stage) :] if redone else (stage,):
            path.with_name(f"{later}.json").unlink(missing_ok=True)
        get_console().rule(f"{job.name}: {stage}")
        record = {"settings": settings, "das3r_ns_version": __version__}
        begin = time.perf_counter()
        try:
            values = work[stage](job)
        except Exception as error:  # whatever it is, it becomes this clip's row
            traceback.print_exc()
            write_json(path, {**record, "error": f"{type(error).__name__}: {error}"})
            if stage in ("predict", "train"):
                return
            continue
        write_json(path, {**record, "seconds": round(time.perf_counter() - begin, 1), "values": values})


def settings_of_stage(job: ClipJob, stage: str) -> dict[str, Any]:
    """What a stage's result depends on, apart from the stages before it."""
    stat = job.source.stat()
    source = {"source": str(job.source.resolve()), "changed": stat.st_mtime_ns}
    if stage == "predict":
        return {**source, "options": asdict(job.options)}
    return {**source, "options": asdict(job.options), "method": job.method, "steps": job.steps}


def scene_folder(job: ClipJob) -> Path:
    """Where the clip's scene lies: itself where it is one."""
    from das3r_ns.scene import is_scene_folder

    return job.source if is_scene_folder(job.source) else job.out / "scene"


def predict_stage(job: ClipJob) -> dict[str, Any]:
    """Cameras, depth and masks; what is known of their quality."""
    from das3r_ns.dataparser.predict import predict
    from das3r_ns.scene import DYNAMIC_THRESHOLD, read_scene

    folder = scene_folder(job)
    if folder != job.source:
        predict(job.source, folder, job.options, overwrite=True)
    scene = read_scene(folder)
    return {
        "scene": str(folder),
        "predictor": scene.provenance.get("predictor"),
        "frames": len(scene),
        "frames_posed": int(scene.pose_known.sum()),
        "moving_share": float((scene.dynamic_prob > DYNAMIC_THRESHOLD).float().mean()),
        "quality": (scene.provenance.get("quality") or {}).get("clip"),
        "distrusted_frames": len((scene.provenance.get("quality") or {}).get("distrusted_frames", ())),
    }


def train_stage(job: ClipJob) -> dict[str, Any]:
    """The splat, from the beginning: what an interrupted training left is removed."""
    import shutil

    from nerfstudio.scripts.train import train_loop

    from das3r_ns.evaluation.bench.training import method_config

    config = method_config(job.method, scene_folder(job), job.out / "runs", job.steps)
    manager = config.pipeline.datamanager
    manager.dataparser = replace(manager.dataparser, eval_mode="all")  # nothing is held out of a user's result
    folder = config.get_base_dir()
    if folder.exists():
        shutil.rmtree(folder)
    config.save_config()
    train_loop(local_rank=0, world_size=1, config=config)
    return {"config": str(folder / "config.yml")}


def config_of_run(job: ClipJob) -> Path:
    """The run's config.yml, as `train` wrote it down."""
    return Path(results_of(job.out)["train"]["values"]["config"])


def image_stage(job: ClipJob) -> dict[str, Any]:
    """A contact sheet: input, what moves, static render; and how well the static parts are rendered."""
    import cv2
    import numpy as np

    from das3r_ns.evaluation.figures import Sheet, spread_evenly
    from das3r_ns.render.clip import clip_frames
    from das3r_ns.render.run import load_run
    from das3r_ns.scene import read_scene

    pipeline = load_run(config_of_run(job))
    scene = read_scene(scene_folder(job))
    frames = clip_frames(pipeline)
    sheet = Sheet(("input", "what moves", "static render"))
    errors = []
    for i in spread_evenly(len(frames), 3):
        dataset, place = frames[i]
        seen = dataset.get_numpy_image(place)[..., :3]
        render = pipeline.model.get_outputs_for_camera(dataset.cameras[place : place + 1])["rgb"]
        shown = (render * 255).round().clamp(0, 255).byte().cpu().numpy()
        moving = cv2.resize(scene.dynamic_prob[i].numpy(), seen.shape[1::-1])
        marked = seen * (1 - 0.8 * moving[..., None]) + moving[..., None] * (204, 30, 30)
        sheet.add(f"frame {i}:", [seen, marked.clip(0, 255).astype(np.uint8), shown])
        errors.append(((seen.astype(np.float64) - shown)[moving < 0.5] ** 2).mean() / 255**2)
    path = sheet.save(job.out / "contact_sheet.png")
    return {
        "image": str(path),
        "static_psnr_of_training_frames": float(-10 * np.log10(max(float(np.mean(errors)), 1e-10))),
        "num_gaussians": int(pipeline.model.num_points),
    }


def render_stage(job: ClipJob) -> dict[str, Any]:
    """The static video."""
    from das3r_ns.render.static_video import render_static

    video = render_static(config_of_run(job), job.out / "static.mp4")
    return {"video": str(video.path), "unseen": video.unseen}


def export_stage(job: ClipJob) -> dict[str, Any]:
    """The splat as PLY."""
    from das3r_ns.render.splat import export_splat

    return {"splat": str(export_splat(config_of_run(job), job.out / "splat.ply"))}


if __name__ == "__main__":
    run_clip(pickle.load(sys.stdin.buffer))
