"""`das3r bench`: every sequence of a set predicted, trained and measured, and one table at the end."""

import platform
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
import torch
import tyro
from rich import get_console

from das3r_ns import __version__
from das3r_ns.evaluation.bench.launch import run_here, run_on_cluster
from das3r_ns.evaluation.bench.sets import FRAMES, FrameChoice, find_sequences
from das3r_ns.evaluation.bench.synthetic_set import CLIPS, draw_missing
from das3r_ns.evaluation.bench.table import BenchTable, read_row
from das3r_ns.evaluation.bench.training import BASELINES
from das3r_ns.evaluation.bench.worker import Job, Stage, results_folder, run_job
from das3r_ns.evaluation.report import shown
from das3r_ns.files.whole import check_output
from das3r_ns.predictor.registry import PredictorOptions, resolve, resolved
from das3r_ns.runtime.shared_cores import available_cores

STAGES: tuple[Stage, ...] = ("masks", "poses", "psnr")

BYTES_A_PIXEL = 14
"""Of a frame: its images as prepared and in the scene folder, maps and masks, most of them smaller than the image."""
MIN_RUN_BYTES = 64 << 20
"""Of a run of few Gaussians; ns-train asks for what it takes when it knows how many there are."""
UNKNOWN_FRAMES, UNKNOWN_SIDE_PX = 100, 1280
"""Of a sequence of which all frames are taken, or at their own size, when room is asked for."""


def bench(
    what: Annotated[str, tyro.conf.Positional],
    data: Path | None = None,
    out: Path | None = None,
    stages: tuple[Literal["masks", "poses", "psnr", "all"], ...] = ("all",),
    sequences: tuple[str, ...] = (),
    predictors: Annotated[PredictorOptions, tyro.conf.arg(name="")] = PredictorOptions(),  # noqa: B008  (tyro copies it)
    methods: tuple[str, ...] = ("das3r",),
    baselines: bool = True,
    steps: int | None = None,
    baseline_steps: int | None = None,
    max_frames: int | None = None,
    longest_side: int | None = 512,
    true_masks: bool = False,
    jobs: int = 1,
    slurm_partition: str | None = None,
    slurm_hours: float = 4.0,
    again: bool = False,
) -> BenchTable:
    """Measure a whole set by the protocol of the DAS3R paper, with its published figures beside ours.

    The first 50 frames at most (TUM: 90, every third) are brought to 512 pixels; frames 5, 15, 25, ... are held out of
    the Gaussians. An interrupted benchmark goes on where it stopped when the command is repeated. A sequence that
    fails is a row that says why.

    Args:
        what: davis, sintel, tum-dynamics, composited, synthetic, or a folder of clips (CLIP/images,
            CLIP/dynamic_masks, ...). The clips of synthetic are drawn into `data` when they are not there yet.
        data: where the set lies, as its publisher packs it or as folders of clips. data/WHAT when left out.
        out: folder for scenes, runs, images and tables. benchmarks/WHAT (benchmarks/WHAT-true-masks) when left out.
        stages: what to measure. psnr trains; masks and poses need a prediction only.
        sequences: names of the sequences. Left out, those of the published tables, or all of a folder of clips.
        predictors: which predictor, and the settings of each.
        methods: nerfstudio methods to train: das3r, das3r-paper, das3r-lite.
        baselines: train nerfstudio's splatfacto too, with and without masks, on the same scene folders. Needs a GPU.
        steps: training steps of every method, instead of its own number. For a quick look.
        baseline_steps: training steps of the baselines instead of their 30 000, schedules shortened in proportion.
        max_frames: instead of the protocol's number of frames.
        longest_side: of the images, in pixels. None keeps their size; that is no longer the published protocol.
        true_masks: put the true masks in place of the predicted ones, to see what the predictor's cost. Into another
            OUT than a run without; one that holds its scenes spares the prediction.
        jobs: sequences at a time, dealt out over the GPUs.
        slurm_partition: submit each sequence to this SLURM partition instead (needs the extra `cluster`).
        slurm_hours: time limit of each of those jobs.
        again: repeat everything, whatever is there already.

    Returns:
        The table, which is also written to OUT as table.md, table.csv and table.json.

    Raises:
        ValueError: there is no such set, sequence or method, or the predictor cannot run; said before the long work.
        OSError: `out` cannot be written or has too little room; said before anything is predicted.
        RuntimeError: every sequence failed.
    """
    set_name, folder = _set_and_folder(what, data)
    if what == "synthetic":
        draw_missing(folder, sequences or tuple(CLIPS))
    sources = find_sequences(set_name, folder, sequences)
    chosen: tuple[Stage, ...] = STAGES if "all" in stages else tuple(s for s in STAGES if s in stages)
    if jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {jobs}")
    trained = _methods(methods, baselines) if "psnr" in chosen else ()
    _check_methods(trained)
    name, reason = resolve(predictors)
    frames = FRAMES.get(set_name, FRAMES["davis"])
    if max_frames is not None:
        frames = FrameChoice(max_frames, frames.stride)
    out = out or Path("benchmarks") / f"{set_name}{'-true-masks' if true_masks else ''}"
    console = get_console()
    console.print(f"{len(sources)} sequences of {folder}; predictor {name}, {reason}; stages {', '.join(chosen)}.")
    table = BenchTable(
        set_name, trained, notes=_notes(name, trained, frames, longest_side, steps, baseline_steps, true_masks)
    )
    todo = [
        Job(
            source,
            frames,
            longest_side,
            chosen,
            resolved(predictors),
            trained,
            steps,
            baseline_steps or steps,
            out / source.name,
            again,
            true_masks,
        )
        for source in sources
    ]

    def done(job: Job) -> None:
        table.rows.append(read_row(job))
        _tell(table, len(todo))
        table.write(out)

    _check_room(todo, out)
    for job in todo:
        (job.out / "results" / "crash.json").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if slurm_partition is not None:
        run_on_cluster(todo, slurm_partition, slurm_hours, out / "slurm", done, run_job)
    else:
        run_here(todo, jobs, done, "das3r_ns.evaluation.bench.worker")
    order = [source.name for source in sources]
    table.rows.sort(key=lambda row: order.index(row.sequence))
    paths = table.write(out)
    console.print(table.markdown(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written to {paths['md']}, {paths['csv'].name}, {paths['json'].name}", highlight=False)
    if all("predict" not in row.stages or "error" in row.stages["predict"] for row in table.rows):
        first = next(iter(table.rows[0].errors.values()), "no reason was left")
        raise RuntimeError(f"every sequence failed, the first with: {first}")
    return table


def _check_room(todo: list[Job], out: Path) -> None:
    """See that what the sequences leave fits, of those that have not begun."""
    needed = 0
    for job in todo:
        if results_folder(job.out).exists():
            continue
        side = job.longest_side or UNKNOWN_SIDE_PX
        needed += (job.frames.at_most or UNKNOWN_FRAMES) * side * side * 9 // 16 * BYTES_A_PIXEL
        needed += len(job.methods) * MIN_RUN_BYTES
    check_output(out / "table.json", needed, f"the scenes and runs of {len(todo)} sequences")


def _set_and_folder(what: str, data: Path | None) -> tuple[str, Path]:
    if what in FRAMES:
        return what, data or Path("data") / what
    if Path(what).is_dir():
        if data is not None:
            raise ValueError(f"{what} is a folder of clips already: leave out --data.")
        return Path(what).resolve().name, Path(what)
    raise ValueError(f"{what!r} is neither one of {', '.join(FRAMES)} nor a folder of clips.")


def _methods(methods: tuple[str, ...], baselines: bool) -> tuple[str, ...]:
    with_baselines = baselines and torch.cuda.is_available()
    if baselines and not with_baselines:
        get_console().print("The splatfacto baselines are left out: they need a GPU.", style="yellow")
    return (*methods, *BASELINES) if with_baselines else methods


def _check_methods(methods: tuple[str, ...]) -> None:
    if not methods:
        return
    from nerfstudio.configs.method_configs import all_methods

    unknown = [method for method in methods if method not in all_methods and method not in BASELINES]
    if unknown:
        near = [name for name in all_methods if name.startswith("das3r")]
        raise ValueError(
            f"there is no method {unknown[0]!r}. Ours: {', '.join(near)}; baselines: {', '.join(BASELINES)}."
        )


def _notes(
    predictor: str,
    methods: tuple[str, ...],
    frames: FrameChoice,
    longest_side: int | None,
    steps: int | None,
    baseline_steps: int | None,
    true_masks: bool,
) -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    memory_gb = psutil.virtual_memory().total / 2**30
    # Only Linux says which cores this process may use.
    cores = available_cores()
    return {
        "command": shlex.join(["das3r", *sys.argv[1:]]) if Path(sys.argv[0]).name == "das3r" else "from Python",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{cores} CPU cores ({platform.machine()}), {memory_gb:.0f} GiB, "
        + (", ".join(gpus) if gpus else "no GPU"),
        "versions": f"das3r_ns {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "predictor": f"{predictor}, with the true masks in place of its own" if true_masks else predictor,
        "methods": ", ".join(methods) or "none trained",
        "frames": ("all" if frames.at_most is None else f"the first {frames.at_most} at most")
        + (f", every {frames.stride}rd" if frames.stride > 1 else ""),
        "longest side": f"{longest_side} px" if longest_side else "as it is",
        **({"steps": steps} if steps is not None else {}),
        **({"steps of the baselines": f"{baseline_steps}, schedules in proportion"} if baseline_steps else {}),
    }


def _tell(table: BenchTable, total: int) -> None:
    row = table.rows[-1]
    said = [
        f"J {shown(row.values('masks').get('j_mean'), '{:.3f}')}" if row.values("masks") else "",
        f"ATE {shown(row.values('poses').get('ate'), '{:.4f}')}" if row.values("poses") else "",
        *(
            f"{method} static PSNR {shown(row.images(method, 'predicted')['static_psnr'], '{:.2f}')}"
            for method in table.methods
            if row.images(method, "predicted")
        ),
        *(f"{stage} failed: {why.splitlines()[0]}" for stage, why in row.errors.items()),
    ]
    text = ", ".join(part for part in said if part)
    get_console().print(f"[{len(table.rows)}/{total}] {row.sequence}: {text}", markup=False, highlight=False)
