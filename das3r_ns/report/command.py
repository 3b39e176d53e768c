"""`das3r report`: one HTML file about a scene or a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from das3r_ns import geometry
from das3r_ns.files.json_files import read_json_object
from das3r_ns.files.values import number
from das3r_ns.files.whole import check_output, write_text_whole
from das3r_ns.report import advice, charts, images, page, rendered, video
from das3r_ns.runs.config_file import RunError, read_config
from das3r_ns.scene import Scene, image_paths, is_scene_folder, read_scene
from das3r_ns.scene.trust import colour_of_trust, trust_of_frames

FILE = "report.html"
MAX_REPORT_BYTES = 15 << 20
NUM_PANELS = 6
"""Frames of which masks and depth are shown."""
PANEL_PX = 360
DISTRUSTED = 0.5
"""Frames whose camera is trusted less are pointed out."""


def report(target: Annotated[Path, tyro.conf.Positional], out: Path | None = None) -> Path:
    """Write one HTML file about a scene folder or a run: input and static video side by side, masks, depth, camera
    path, quality by frame, doubts with what to do, timings, settings and versions. It needs nothing beside it.

    Args:
        target: scene folder, run folder (outputs/CLIP/METHOD/TIME), or the config.yml in it.
        out: file to write; report.html in the folder itself when not given.

    Raises:
        FileNotFoundError, ValueError: `target` is none of these.
        RunError: the run cannot be loaded.
        SceneFolderError: the scene is damaged.
        OSError: the file cannot be written.
    """
    target = Path(target)
    if is_scene_folder(target):
        return write_report(out or target / FILE, scene=target)
    config = target / "config.yml" if target.is_dir() else target
    if not config.is_file() or config.name != "config.yml":
        if not target.exists():
            raise FileNotFoundError(f"{target} does not exist. Give a scene folder, or the folder of a run.")
        raise ValueError(
            f"{target} is neither a scene folder (which holds predictor.json) nor a run (which holds config.yml): runs "
            "are in outputs/CLIP/METHOD/TIME, predicted scenes in outputs/das3r_scenes."
        )
    place = out or config.parent / FILE
    check_output(place, MAX_REPORT_BYTES, "the report")
    from das3r_ns.render.run import load_run

    return write_report(place, pipeline=load_run(config), run=config.parent)


def write_report(
    out: Path,
    pipeline: Any = None,
    run: Path | None = None,
    scene: Path | None = None,
    lock: AbstractContextManager[Any] | None = None,
) -> Path:
    """Write the report of a scene, or of a run that is loaded or in training.

    Args:
        run: folder of the run; its settings and the time its training took are read from there.
        lock: held while a frame is rendered, so that a training that goes on meanwhile is not in the middle of a step.

    Raises:
        RunError: the run was not trained on a scene folder.
        SceneFolderError: the scene is damaged.
        OSError: the file cannot be written; one that was there before is still whole.
    """
    from nerfstudio.utils.rich_utils import CONSOLE

    check_output(out, MAX_REPORT_BYTES, "the report")
    if scene is None:
        said = pipeline.datamanager.train_dataset.metadata.get("scene_folder")
        if said is None:
            raise RunError("this run was not trained on a scene of das3r-data: there is no prediction to report on.")
        scene = Path(said)
    content = page.render_page(_collect(scene, pipeline, run, lock))
    write_text_whole(out, content)
    CONSOLE.print(f"Report: {out.absolute()}", soft_wrap=True, highlight=False)
    return out


def _collect(folder: Path, pipeline: Any, run: Path | None, lock: AbstractContextManager[Any] | None) -> page.Report:
    from das3r_ns.dataparser.outputs import shown_scene

    scene, paths = read_scene(folder), image_paths(folder)
    said = scene.provenance
    if pipeline is None:
        doubts, of_run = [], None
        clip = _video(scene, rendered.halves_of_scene(scene, paths), "what moves, in red")
    else:
        of_run = _RunFacts.read(pipeline, run)
        halves = rendered.halves_of_run(pipeline, paths, lock)
        clip = _video(scene, halves, "the static scene from the same cameras")
        unseen = float(np.mean(halves.unseen)) if halves.unseen else None
        model = pipeline.model
        doubts = advice.advice_on_run(
            of_run.steps, of_run.max_steps, model.cull_staticness, model.config.cull_staticness,
            model.config.keep_dynamic, unseen,
        )  # fmt: skip
    trust = trust_of_frames(said, len(scene))
    colours = ["rgb({}, {}, {})".format(*colour_of_trust(value)) for value in trust]
    settings = {"Settings of the prediction (predictor.json)": page.settings_text(said.get("options") or said)}
    if of_run is not None and of_run.config:
        settings["Settings of the training (config.yml)"] = of_run.config
    return page.Report(
        title=page.readable(Path(str(said.get("input", folder.name))).name or folder.name),
        summary=[*_summary(scene, folder), *([] if of_run is None else of_run.summary)],
        advice=[*advice.advice_on_scene(scene), *doubts],
        video=clip,
        masks=_panels(scene, paths, "masks"),
        depth=_panels(scene, paths, "depth"),
        plans=charts.plans(shown_scene(scene)[0], colours),
        curves=_curves(scene, trust),
        seconds=_seconds(said, of_run),
        settings=settings,
    )


@dataclass(frozen=True)
class _RunFacts:
    steps: int
    max_steps: int
    seconds: float | None
    config: str
    summary: list[tuple[str, str]]

    @classmethod
    def read(cls, pipeline: Any, run: Path | None) -> _RunFacts:
        model, path = pipeline.model, None if run is None else Path(run) / "config.yml"
        config = path.read_text(encoding="utf-8", errors="replace") if path is not None and path.is_file() else ""
        steps = int(model.step) + 1
        summary = [
            ("Run", page.readable(Path(run).absolute()) if run is not None else "in memory"),
            ("Training", f"{steps} steps"),
            ("Gaussians", f"{int(model.num_points):,}"),
        ]
        return cls(steps, _max_steps(path, steps), _training_s(run), config, summary)

    @property
    def training_s(self) -> dict[str, float]:
        """Seconds of the training, if they were recorded."""
        return {} if self.seconds is None else {"Training": self.seconds}


def _max_steps(path: Path | None, steps: int) -> int:
    """Steps that a run was to have, by its config.yml."""
    if path is None or not path.is_file():
        return steps
    try:
        return int(read_config(path).max_num_iterations)
    except RunError:  # of a training that goes on, whose file somebody is just editing
        return steps


def _training_s(run: Path | None) -> float | None:
    from das3r_ns.runs.trainer import TRAINING_RECORD  # nerfstudio, which the report of a scene can do without

    path = None if run is None else Path(run) / TRAINING_RECORD
    if path is None or not path.is_file():
        return None
    try:
        return number(read_json_object(path), "seconds", str(path))
    except (KeyError, ValueError):
        return None


def _summary(scene: Scene, folder: Path) -> list[tuple[str, str]]:
    said, (height, width) = scene.provenance, scene.image_size
    clip = (said.get("quality") or {}).get("clip") or {}
    seconds = scene.times_s[-1] - scene.times_s[0] if scene.times_s is not None else (len(scene) - 1) / scene.fps
    fov = geometry.field_of_view(float(scene.K[:, 0, 0].mean()), float(width))
    known = advice.known_depth_share(scene) or 0.0
    rows = [
        ("Clip", f"{len(scene)} frames of {width}x{height}, {seconds:.1f} s"),
        ("Predictor", str(said.get("predictor", "not recorded"))),
        ("Cameras", f"{int(scene.pose_known.sum())} of {len(scene)} frames posed"),
        ("Field of view", f"{fov:.0f} degrees across" + ("" if scene.lens is None else f", {scene.lens}")),
        ("Moving", f"{float(advice.moving_shares(scene).mean()):.1%} of the pixels"),
        ("Depth", f"known for {known:.0%} of the static pixels"),
        ("Scene folder", page.readable(folder.absolute())),
    ]
    if isinstance(clip.get("reprojection_error_px"), (int, float)):
        rows.insert(3, ("Reprojection error", f"{clip['reprojection_error_px']:.2f} px"))
    return rows


def _panels(scene: Scene, paths: Sequence[Path], what: str) -> list[page.Panel]:
    ends = images.inverse_depth_range(scene.depth.numpy())
    panels = []
    for place in sorted({round(i) for i in np.linspace(0, len(scene) - 1, NUM_PANELS)}):
        image = rendered.thumbnail(paths[place], PANEL_PX)
        if what == "depth":
            image = images.coloured_depth(scene.depth[place].numpy(), ends, (image.shape[0], image.shape[1]))
        else:
            image = images.with_mask(image, scene.dynamic_prob[place].numpy())
        panels.append(page.Panel(images.jpeg_uri(image), f"Frame {place + 1}"))
    return panels


def _curves(scene: Scene, trust: Sequence[float | None]) -> list[charts.Curve]:
    record = (scene.provenance.get("quality") or {}).get("frames") or {}
    marks = [i for i in range(len(scene)) if not bool(scene.pose_known[i]) or (trust[i] or 1.0) < DISTRUSTED]

    def recorded(name: str) -> list[float | None]:
        values = record.get(name)
        if not isinstance(values, list) or len(values) != len(scene):
            return [None] * len(scene)
        return [float(value) if isinstance(value, (int, float)) else None for value in values]

    moving = [float(share) for share in advice.moving_shares(scene)]
    found = (
        charts.curve("Trust in the camera", "", trust, 1.0, marks),
        charts.curve("Reprojection error", "px", recorded("reprojection_error_px"), None, marks),
        charts.curve("Explained of what was followed", "", recorded("explained_share"), 1.0, marks),
        charts.curve("Share of the image that moves", "", moving, None, marks),
    )
    return [each for each in found if each is not None]


def _seconds(said: dict[str, Any], of_run: _RunFacts | None) -> dict[str, float]:
    stages = said.get("seconds")
    found = {}
    if isinstance(stages, dict):
        for name, seconds in stages.items():
            if isinstance(seconds, (int, float)):
                found["Prediction in all" if name == "total" else str(name)] = float(seconds)
    return found | ({} if of_run is None else of_run.training_s)


def _video(scene: Scene, halves: rendered.Halves, right: str) -> page.Video:
    times_s = [i / scene.fps for i in range(len(scene))] if scene.times_s is None else list(scene.times_s)
    kind, content = video.encode_video(halves.images, [times_s[i] for i in halves.places])
    left_out = len(scene) - len(halves.places)
    every = f" {len(halves.places)} of {len(scene)} frames, to keep the report small and quick." if left_out else ""
    caption = f"Left the input, right {right}.{every}"
    return page.Video(images.data_uri(kind, content), kind, halves.size[1], halves.size[0], caption)
