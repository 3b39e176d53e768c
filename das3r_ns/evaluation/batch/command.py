"""`das3r batch`: a folder of clips, each predicted, trained, rendered and exported; one table of what came of them."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich import get_console

from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.naming import clip_name
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.evaluation.batch.worker import ClipJob, results_of, run_clip
from das3r_ns.evaluation.bench.launch import run_here, run_on_cluster
from das3r_ns.files.json_files import write_json
from das3r_ns.files.whole import write_text_whole
from das3r_ns.predictor.registry import resolve
from das3r_ns.video.image_folder import HEIF_SUFFIXES, IMAGE_SUFFIXES, UNREADABLE_SUFFIXES

VIDEO_ENDINGS = frozenset((".mp4", ".mov", ".m4v", ".3gp", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".gif"))
OTHER_VIDEO_ENDINGS = frozenset((
    ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".m2v", ".vob", ".mxf", ".ogv", ".3g2", ".f4v", ".dv", ".divx", ".rm",
    ".rmvb", ".y4m", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".apng",
))  # fmt: skip
IMAGE_ENDINGS = IMAGE_SUFFIXES | HEIF_SUFFIXES | UNREADABLE_SUFFIXES
"""Those that cannot be read here included: such a folder is a row that says what is missing."""


def batch(
    folder: Annotated[Path, tyro.conf.Positional],
    out: Path | None = None,
    options: Annotated[PredictionOptions, tyro.conf.arg(name="")] = PredictionOptions(),  # noqa: B008  (never changed)
    method: str = "auto",
    steps: int | None = None,
    render: bool = True,
    export: bool = True,
    jobs: int = 1,
    cluster: Literal["none", "slurm", "local"] = "none",
    slurm_partition: str = "",
    slurm_hours: float = 4.0,
    again: bool = False,
) -> list[dict[str, Any]]:
    """Take every clip of a folder from video to splat: predict, train, render the static video, export the PLY.

    A clip is a video, a folder of images, a nerfstudio dataset or a scene folder in FOLDER. When the command is
    repeated, what is finished is kept and what failed or was interrupted is done again. A clip that fails is a row of
    the table that says why.

    Args:
        folder: holds the clips.
        out: folder for scenes, runs, videos, splats and the table. FOLDER_das3r beside FOLDER when left out.
        options: how to read and predict; the same for every clip.
        method: nerfstudio method to train. `auto` takes das3r where there is a CUDA GPU, else das3r-lite.
        steps: training steps, instead of the method's own number.
        render: write the static video of each clip.
        export: write the splat of each clip as PLY.
        jobs: clips at a time, dealt out over the GPUs of this machine; they share its cores.
        cluster: submit each clip as a job instead: `slurm`, to `slurm_partition`; `local`, submitit's processes on this
            machine, for a trial (extra `cluster`).
        slurm_partition: name of the partition.
        slurm_hours: time limit of each of those jobs.
        again: repeat everything, whatever is there already.

    Returns:
        The rows of the table, which is also written to OUT as batch.md and batch.json.

    Raises:
        FileNotFoundError: there is no such folder, or no clip in it.
        ValueError: an option makes no sense, or two clips have one name.
        RuntimeError: a clip failed, or a stage of it; the table is written all the same.
    """
    options.check()
    if options.masks is not None or options.cameras is not None:
        raise ValueError("--masks and --cameras belong to one clip: give such clips as datasets or scene folders.")
    if jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {jobs}")
    if (cluster == "slurm") != bool(slurm_partition):
        raise ValueError("--cluster slurm and --slurm-partition NAME go together.")
    clips = find_clips(folder)
    out = out or folder.resolve().with_name(f"{folder.resolve().name}_das3r")
    method = _method(method)
    predictor, reason = resolve(options)
    options = replace(options, predictor=predictor)
    stages = ("predict", "train", "image", *(("render",) if render else ()), *(("export",) if export else ()))
    console = get_console()
    console.print(f"{len(clips)} clips of {folder}; predictor {predictor}, {reason}; method {method}; into {out}")
    todo = [ClipJob(name, path, options, method, steps, stages, out / name, again) for name, path in clips.items()]
    rows: dict[str, dict[str, Any]] = {}

    def done(job: ClipJob) -> None:
        rows[job.name] = row_of(job)
        error = rows[job.name]["error"]
        console.print(f"[{len(rows)}/{len(todo)}] {job.name}: {error or 'done'}", markup=False, highlight=False)
        write_table([rows[name] for name in clips if name in rows], out)

    for job in todo:
        (job.out / "results" / "crash.json").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if cluster == "none":
        run_here(todo, jobs, done, "das3r_ns.evaluation.batch.worker")
    else:
        run_on_cluster(todo, slurm_partition, slurm_hours, out / "slurm", done, run_clip, cluster, jobs)
    table = [rows[name] for name in clips]
    console.print(as_markdown(table, out), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written to {out / 'batch.md'} and batch.json", highlight=False)
    failed = [row for row in table if row["error"]]
    if failed:
        which = "every clip" if len(failed) == len(table) else f"{len(failed)} of {len(table)} clips"
        raise RuntimeError(f"{which} failed, {failed[0]['clip']} with: {failed[0]['error']}")
    return table


def find_clips(folder: Path) -> dict[str, Path]:
    """Clips in a folder by name, in order. What is none is passed over with a line.

    Raises:
        FileNotFoundError: there is no such folder, or no clip in it.
        ValueError: two clips have one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder. Give the folder that holds the clips.")
    clips: dict[str, Path] = {}
    passed = []
    for path in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        if not _is_clip(path):
            passed.append(path.name)
            continue
        name = clip_name(path)
        if name in clips:
            raise ValueError(f"{clips[name].name} and {path.name} of {folder} have one name: rename one of them.")
        clips[name] = path
    if passed:
        print(f"Not clips, and passed over: {', '.join(passed[:8])}{', ...' if len(passed) > 8 else ''}")
    if not clips:
        raise FileNotFoundError(
            f"{folder} holds neither videos nor folders of images. One clip's own images are not a folder of clips: "
            "ns-train das3r --data reads those."
        )
    return clips


def _is_clip(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in VIDEO_ENDINGS | OTHER_VIDEO_ENDINGS
    if not path.is_dir():
        return False
    return kind_of(path) != "clip" or any(image.suffix.lower() in IMAGE_ENDINGS for image in path.iterdir())


def _method(name: str) -> str:
    from nerfstudio.configs.method_configs import all_methods

    if name == "auto":
        import torch

        return "das3r" if torch.cuda.is_available() else "das3r-lite"
    ours = [method for method in all_methods if method.startswith("das3r")]
    if name not in ours:
        raise ValueError(f"--method {name}: choose one of auto, {', '.join(ours)}.")
    return name


def row_of(job: ClipJob) -> dict[str, Any]:
    """All that the stages of a clip found, flat."""
    results = results_of(job.out)
    values = {stage: record.get("values", {}) for stage, record in results.items()}
    wanted = ("crash", *job.stages)
    errors = [f"{stage}: {results[stage]['error']}" for stage in wanted if "error" in results.get(stage, {})]
    predicted, image = values.get("predict", {}), values.get("image", {})
    return {
        "clip": job.name,
        "source": str(job.source),
        **{key: predicted.get(key) for key in ("predictor", "frames", "frames_posed", "moving_share", "quality")},
        "distrusted_frames": predicted.get("distrusted_frames"),
        "method": job.method,
        "num_gaussians": image.get("num_gaussians"),
        "static_psnr_of_training_frames": image.get("static_psnr_of_training_frames"),
        "scene": predicted.get("scene"),
        "config": values.get("train", {}).get("config"),
        "image": image.get("image"),
        "video": values.get("render", {}).get("video"),
        "splat": values.get("export", {}).get("splat"),
        "seconds": {stage: record["seconds"] for stage, record in results.items() if "seconds" in record},
        "error": "; ".join(errors) or None,
    }


def write_table(rows: list[dict[str, Any]], out: Path) -> None:
    """Write batch.md and batch.json, each whole."""
    write_json(out / "batch.json", rows)
    write_text_whole(out / "batch.md", as_markdown(rows, out))


def as_markdown(rows: list[dict[str, Any]], out: Path) -> str:
    """The table to read, with links to what lies in `out`."""
    head = (
        "clip",
        "frames posed",
        "moving",
        "cameras",
        "Gaussians",
        "static PSNR, training frames",
        "s",
        "image",
        "results",
    )
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]

    def link(path: str | None, text: str) -> str:
        if path is None:
            return ""
        inside = Path(path).is_relative_to(out)
        return f"[{text}]({Path(path).relative_to(out).as_posix()})" if inside else text

    for row in rows:
        quality = row["quality"] or {}
        doubts = "; ".join(quality.get("doubts", ())) or ("no doubts" if quality else "")
        cells = (
            row["clip"],
            f"{row['frames_posed']} of {row['frames']}" if row["frames"] else "",
            f"{row['moving_share']:.0%}" if row["moving_share"] is not None else "",
            doubts,
            f"{row['num_gaussians']}" if row["num_gaussians"] else "",
            f"{row['static_psnr_of_training_frames']:.2f}" if row["static_psnr_of_training_frames"] else "",
            f"{sum(row['seconds'].values()):.0f}",
            "!" + link(row["image"], "contact sheet") if row["image"] else "",
            ", ".join(filter(None, (link(row["video"], "video"), link(row["splat"], "splat"))))
            or f"**failed**: {str(row['error']).splitlines()[0]}",
        )
        if row["error"] and (row["video"] or row["splat"]):
            cells = (*cells[:-1], f"{cells[-1]}; **failed**: {row['error'].splitlines()[0]}")
        lines.append("| " + " | ".join(_in_a_cell(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _in_a_cell(text: str) -> str:
    """Text without what would end the cell, the line, or be a command to the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text.replace("|", "/"))
