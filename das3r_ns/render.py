"""The static video: the input's own camera path without what moved. And the PLY, with a choice of what stays in it."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras

    from das3r_ns.pipeline import Das3rPipeline


@dataclass(frozen=True)
class StaticVideo:
    """What was rendered."""

    path: Path
    """The video."""
    num_frames: int
    fps: float
    unseen: float
    """Share of all pixels that show no static surface, because none was ever seen there. They are left flat."""


def render_static(
    load_config: Path, out: Path = Path("renders/static.mp4"), side_by_side: bool = True, fps: float | None = None
) -> StaticVideo:
    """Render the input's own camera path from the static model, as a video at the input's rate.

    Args:
        load_config: config.yml of a finished training run.
        out: video to write.
        side_by_side: put the input at the left of the render.
        fps: frames per second of the video. None takes the input's.

    Raises:
        FileNotFoundError: there is no such config.yml.
        ValueError: the run is of another method.
    """
    from nerfstudio.utils.rich_utils import CONSOLE
    from rich.progress import track

    pipeline = load_run(load_config)
    frames = clip_frames(pipeline)
    rate = fps or clip_fps(pipeline) or 30.0
    unseen = 0.0
    out.parent.mkdir(parents=True, exist_ok=True)
    with video_writer(out, rate) as write:
        for dataset, i in track(frames, description=f"Rendering {len(frames)} frames"):
            outputs = pipeline.model.get_outputs_for_camera(_sharp(dataset.cameras[i : i + 1]))
            picture = (outputs["rgb"] * 255).round().byte().cpu().numpy()
            unseen += float(outputs["unseen"].mean()) / len(frames)
            write(np.concatenate((dataset.get_numpy_image(i)[..., :3], picture), axis=1) if side_by_side else picture)
    CONSOLE.print(f"{out}: {len(frames)} frames at {rate:g} fps.")
    if unseen > 1e-3:
        CONSOLE.print(
            f"{unseen:.1%} of its pixels were never seen: something stood in front of them in every frame that looked "
            "there. They continue what surrounds them (the output `unseen` says where)."
        )
    return StaticVideo(out, len(frames), rate, unseen)


def export_splat(load_config: Path, out: Path = Path("exports/splat.ply"), keep_dynamic: bool = False) -> Path:
    """Write the model as a PLY, as `ns-export gaussian-splat` does, with a say in what is kept.

    Args:
        load_config: config.yml of a finished training run.
        out: PLY file to write.
        keep_dynamic: write Gaussians that are not static as well, instead of leaving out those whose staticness is
            below the method's `cull_staticness`.
    """
    import yaml
    from nerfstudio.scripts.exporter import ExportGaussianSplat

    config = _read_config(load_config)
    config.pipeline.model.keep_dynamic = keep_dynamic
    with tempfile.TemporaryDirectory() as folder:
        changed = Path(folder) / "config.yml"
        changed.write_text(yaml.dump(config), "utf8")
        ExportGaussianSplat(load_config=changed, output_dir=out.parent, output_filename=out.name).main()
    return out


def load_run(load_config: Path) -> Das3rPipeline:
    """Pipeline of a finished run, in evaluation mode, its cameras refined.

    Raises:
        FileNotFoundError: there is no such config.yml.
        ValueError: the run is of another method.
    """
    from nerfstudio.utils.eval_utils import eval_setup

    from das3r_ns.pipeline import Das3rPipeline

    _read_config(load_config)
    _, pipeline, _, _ = eval_setup(load_config, test_mode="test")
    assert isinstance(pipeline, Das3rPipeline)
    return pipeline


def _read_config(load_config: Path) -> Any:
    """Config of one of our runs, checked before anything long starts."""
    import yaml

    from das3r_ns.pipeline import Das3rRunConfig

    if not load_config.is_file():
        raise FileNotFoundError(
            f"{load_config} is no file. Give the config.yml that training wrote: outputs/CLIP/METHOD/TIME/config.yml"
        )
    # nerfstudio's own format holds Python objects.
    config = yaml.load(load_config.read_text(encoding="utf-8"), Loader=yaml.Loader)
    if not isinstance(config, Das3rRunConfig):
        method = getattr(config, "method_name", type(config).__name__)
        raise ValueError(f"{load_config} is a run of {method}; das3r, das3r-paper and das3r-lite can be rendered here")
    return config


def _sharp(camera: Cameras) -> Cameras:
    """A camera of the clip that leaves no motion blur; its exposure stays."""
    kept = {name: value for name, value in (camera.metadata or {}).items() if name != "camera_motion"}
    return replace(camera, metadata=kept)


def clip_frames(pipeline: Das3rPipeline) -> list[tuple[Any, int]]:
    """Every frame of the clip in order, held-out ones included, as (dataset, number in it)."""
    frames: dict[int, tuple[Any, int]] = {}
    for dataset in (pipeline.datamanager.eval_dataset, pipeline.datamanager.train_dataset):
        if dataset is None:
            continue
        metadata = dataset.cameras.metadata or {}
        places = metadata["frame_index"].flatten().tolist() if "frame_index" in metadata else range(len(dataset))
        frames.update({int(place): (dataset, i) for i, place in enumerate(places)})
    return [frames[place] for place in sorted(frames)]


def clip_fps(pipeline: Das3rPipeline) -> float | None:
    """Frames per second of the clip, from its scene folder; None for data that has none."""
    dataset = pipeline.datamanager.train_dataset
    folder = None if dataset is None else dataset.metadata.get("scene_folder")
    described = None if folder is None else Path(folder) / "predictor.json"
    if described is None or not described.is_file():
        return None
    return float(json.loads(described.read_text(encoding="utf-8")).get("fps", 30.0))


@contextlib.contextmanager
def video_writer(path: Path, fps: float) -> Iterator[Any]:
    """Give a function that appends a picture [h, w, 3] of 8-bit RGB to a video: H.264 where the codec is there, else
    MPEG-4. Odd sizes lose a row or column, which 4:2:0 colour cannot hold. The video gets its name when it is whole."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        with _encoder(part, fps) as write:
            yield write
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _encoder(path: Path, fps: float) -> Iterator[Any]:
    import av

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "16"} if codec == "libx264" else {"qscale": "2"}

        def write(picture: UInt8[np.ndarray, "h w 3"]) -> None:
            height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
            if not stream.codec_context.is_open:
                stream.height, stream.width = height, width
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
            container.mux(stream.encode(frame))

        yield write
        container.mux(stream.encode())
