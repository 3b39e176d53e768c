"""`das3r eval`: one result against ground truth, as numbers, a table and images.

A result is a scene folder (cameras and masks of a predictor) or a nerfstudio run (which has a scene folder, renders,
and cameras and masks after training). Heavy packages are imported when they are needed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from jaxtyping import Float
from rich import get_console
from torch import Tensor

from das3r_ns import __version__, geometry
from das3r_ns.datasets import TruthClip, TruthError
from das3r_ns.evaluation import figures
from das3r_ns.evaluation.comparison import (
    ImageComparison,
    Look,
    compare_images,
    compare_masks,
    compare_poses,
    truth_of_frames,
)
from das3r_ns.evaluation.report import print_summary
from das3r_ns.evaluation.resizing import resized_image, resized_map
from das3r_ns.evaluation.runs import TrainedRun, load_run, predicted_static_weight
from das3r_ns.evaluation.truth_options import TruthFiles
from das3r_ns.files.json_files import write_json
from das3r_ns.files.whole import check_output
from das3r_ns.scene import DYNAMIC_THRESHOLD, Scene, is_scene_folder, read_scene

Part = Literal["poses", "masks", "psnr"]
PARTS: tuple[Part, ...] = ("poses", "masks", "psnr")
EVALUATION_BYTES = 32 << 20
"""Room for metrics.json and its figures, of which each has a few frames."""


def evaluate(
    scene: Path | None = None,
    load_config: Path | None = None,
    truth: Annotated[TruthFiles, tyro.conf.arg(name="")] = TruthFiles(),  # noqa: B008  (frozen)
    parts: tuple[Part, ...] = (),
    out: Path | None = None,
    refine_test_poses: bool = True,
    allow_unfinished: bool = False,
    draw: bool = True,
) -> dict[str, Any]:
    """Measure a scene folder or a nerfstudio run against ground truth; write metrics.json and images, print one table.

    Args:
        scene: scene folder written by `das3r predict`.
        load_config: config.yml of a run, instead of `scene`; its scene folder is measured too.
        truth: the ground truth: a folder, or its parts one by one.
        parts: what to measure. Left out, everything that there is ground truth for.
        out: folder for metrics.json and images; `evaluation` in the scene folder or beside the config when left out.
        refine_test_poses: measure PSNR also with each test camera moved to fit its frame's static pixels (reported
            apart: it uses the test frame).
        allow_unfinished: take a run that stopped before its last step as it is.
        draw: write the images.

    Returns:
        What metrics.json holds.

    Raises:
        ValueError: result and ground truth do not fit together, or there is nothing to measure; says which file.
        OSError: `out` cannot be written, or has too little room; said before anything is measured.
    """
    if (scene is None) == (load_config is None):
        raise ValueError("give either --scene (a scene folder) or --load-config (the config.yml of a run).")
    if scene is not None and not is_scene_folder(scene):
        raise ValueError(f"--scene {scene} is not a scene folder. `das3r predict` writes one.")
    folder = out or ((load_config.parent if load_config is not None else scene) or Path()) / "evaluation"
    if load_config is None or load_config.is_file():  # else it is what is told first
        check_output(folder / "metrics.json", EVALUATION_BYTES, "what is measured")
    clip = truth.read()
    run = None
    if load_config is not None:
        run = load_run(load_config, allow_unfinished)
        scene = run.scene_folder
    evaluation = Evaluation(clip, folder if draw else None)
    left_out = evaluation.measure(parts, scene, run, refine_test_poses)
    metrics = {
        "das3r_ns_version": __version__,
        "scene": None if scene is None else str(scene),
        "run": None if run is None else {"config": str(load_config), "method": run.method, **run.training},
        "truth": str(clip.folder),
        "num_gaussians": None if run is None else run.num_gaussians,
        **evaluation.results,
        "left_out": left_out,
        "figures": [path.name for path in evaluation.drawn],
    }
    write_json(folder / "metrics.json", metrics)
    print_summary(metrics, get_console())
    get_console().print(f"Written to {folder}", highlight=False)
    return metrics


@dataclass
class Evaluation:
    """The measuring itself: fills `results`, draws into `folder` (None draws nothing)."""

    truth: TruthClip
    folder: Path | None
    results: dict[str, Any] = field(default_factory=dict)
    drawn: list[Path] = field(default_factory=list)

    def measure(
        self,
        parts: tuple[Part, ...],
        scene_folder: Path | None,
        run: TrainedRun | None,
        refine_test_poses: bool = True,
    ) -> dict[str, str]:
        """Measure the asked parts; without any asked, all that can be.

        Returns:
            Parts that were left out, with the reason.
        Raises:
            ValueError: an asked part cannot be measured, or none can.
        """
        scene = None if scene_folder is None else read_scene(scene_folder)
        if scene is not None:
            self.truth = truth_of_frames(self.truth, scene.names)
            if scene.lens is not None:
                self.truth = self.truth.without_distortion(scene.lens, scene.image_size[1])
        steps: dict[Part, Callable[[], None]] = {
            "poses": lambda: self._poses(scene, run),
            "masks": lambda: self._masks(scene, run),
            "psnr": lambda: self._psnr(run, refine_test_poses),
        }
        left_out: dict[str, str] = {}
        for part in parts or PARTS:
            reason = self._impossible(part, scene, run)
            if reason is not None and parts:
                raise TruthError(f"{part} cannot be measured: {reason}")
            if reason is not None:
                left_out[part] = reason
            else:
                steps[part]()
        if not self.results:
            raise TruthError("nothing can be measured: " + " ".join(f"{part}: {why}" for part, why in left_out.items()))
        return left_out

    def _impossible(self, part: Part, scene: Scene | None, run: TrainedRun | None) -> str | None:
        truth = self.truth
        if part == "psnr":
            if run is None:
                return "a scene folder shows no images; give --load-config of a run trained on it."
            if truth.images is None or truth.dynamic_mask is None:
                return f"{truth.folder} lacks images/ or dynamic_masks/ (or --truth-images, --truth-masks)."
            return None
        if scene is None:
            return "the run was not trained on a scene folder."
        if part == "masks" and truth.dynamic_mask is None:
            return f"{truth.folder} has no dynamic_masks/ (or --truth-masks)."
        if part == "poses" and truth.T_world_camera is None:
            return f"{truth.folder} has no T_world_camera.txt (or --truth-poses)."
        return None

    def _poses(self, scene: Scene | None, run: TrainedRun | None) -> None:
        assert scene is not None
        paths = {"predicted": (scene.T_world_camera, scene.K, scene.image_size[1])}
        if run is not None and (cameras := run.trained_cameras()) is not None:
            width = int(run.pipeline.datamanager.train_dataset.cameras.width[0])
            paths["trained"] = (*cameras, width)
        compared = {name: compare_poses(*path, self.truth) for name, path in paths.items()}
        self.results["poses"] = {name: result.summary() for name, result in compared.items()}
        if self.folder is not None:
            aligned = {
                f"{name}, ATE {result.errors.ate:.4f} ({result.errors.ate_percent:.2f} %)": geometry.apply_similarity(
                    result.errors.T_truth_predicted, paths[name][0].double()
                )[0]
                for name, result in compared.items()
            }
            assert self.truth.T_world_camera is not None
            self._drew(figures.draw_paths(aligned, self.truth.T_world_camera, self.folder / "trajectory.png"))

    def _masks(self, scene: Scene | None, run: TrainedRun | None) -> None:
        assert scene is not None
        maps = {"predicted": scene.dynamic_prob}
        trained = {} if run is None else run.trained_dynamic_prob()
        if trained and sorted(trained) == list(range(len(scene))):
            maps["trained"] = torch.stack([trained[i] for i in range(len(scene))])
        compared = {name: compare_masks(values, self.truth) for name, values in maps.items()}
        self.results["masks"] = {name: result.summary() for name, result in compared.items()}
        if self.folder is not None:
            frames = compared["predicted"].frames
            self._draw_masks(maps["predicted"], [frames[k] for k in figures.spread_evenly(len(frames))])

    def _draw_masks(self, dynamic_prob: Float[Tensor, "n h w"], frames: list[int]) -> None:
        assert self.folder is not None
        assert self.truth.dynamic_mask is not None
        sheet = figures.mask_sheet()
        for i in frames:
            mask = self.truth.dynamic_mask(i)
            assert mask is not None
            height, width = mask.shape
            probability = resized_map(dynamic_prob[i], height, width, "the mask").clamp(0, 1)
            image = torch.zeros(height, width, 3, dtype=torch.uint8)
            if self.truth.images is not None:
                source = resized_image(self.truth.image(i), height, width, str(self.truth.images[i]))
                image = (255 * source.clamp(0, 1)).round().byte()
            sheet.add(f"frame {i}:", figures.mask_panels(image, mask, probability, DYNAMIC_THRESHOLD))
        self._drew(sheet.save(self.folder / "masks.jpg"))

    def _psnr(self, run: TrainedRun | None, refine_test_poses: bool) -> None:
        assert run is not None
        frames = run.eval_frames
        shown = {frames[k] for k in figures.spread_evenly(len(frames))}
        sheets: dict[str, figures.Sheet] = {}

        def look(variant: str) -> Look:
            sheets[variant] = figures.image_sheet(with_background=self.truth.clean is not None)

            def add(frame: int, render: Tensor, image: Tensor, dynamic: Tensor, background: Tensor | None) -> None:
                if frame in shown and self.folder is not None:
                    panels = figures.image_panels(render, image, dynamic, background)
                    sheets[variant].add(f"frame {frame}:", panels)

            return add

        compared = measure_renders(run, self.truth, refine_test_poses, look)
        self.results["psnr"] = {name: result.summary() for name, result in compared.items()}
        if self.folder is not None:
            self._drew(figures.draw_psnr(compared, self.folder / "psnr.png"))
            for variant, sheet in sheets.items():
                if sheet.rows:
                    self._drew(sheet.save(self.folder / f"renders_{variant}.jpg"))

    def _drew(self, path: Path) -> None:
        self.drawn.append(path)


def measure_renders(
    run: TrainedRun,
    truth: TruthClip,
    refine_test_poses: bool,
    look: Callable[[str], Look],
) -> dict[str, ImageComparison]:
    """PSNR and the like of a run's eval frames, for each way of placing the test cameras.

    `predicted`: test poses as predicted, which is the published protocol. `trained`: with what training learned about
    cameras, taken from the neighbours for held-out frames; only where that moves them. `refined`: test poses refined
    on static pixels.

    Args:
        look: gives, for each way, what is called with each frame.
    """
    frames = run.eval_frames
    compared = {
        "predicted": compare_images(frames, lambda i: run.render(run.camera_as_predicted(i)), truth, look("predicted"))
    }
    if run.moves_test_cameras:
        compared["trained"] = compare_images(
            frames, lambda i: run.render(run.camera_as_trained(i)), truth, look("trained")
        )
    if refine_test_poses:
        weight = predicted_static_weight(run)

        def render_refined(i: int) -> Tensor:
            image = run.image(i)
            static = weight(i, image.shape[0], image.shape[1])
            return run.render(run.camera_refined(i, image, static))

        compared["refined"] = compare_images(frames, render_refined, truth, look("refined"))
    return compared
