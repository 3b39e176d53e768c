"""`das3r bench`: every sequence of a set predicted, trained and measured, and one table at the end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich import get_console

from das3r_ns.evaluation.bench.launch import run_here, run_on_cluster
from das3r_ns.evaluation.bench.protocol import BenchProtocol
from das3r_ns.evaluation.bench.sets import FRAMES, find_sequences
from das3r_ns.evaluation.bench.synthetic_set import CLIPS, draw_missing
from das3r_ns.evaluation.bench.table import BenchTable, read_row
from das3r_ns.evaluation.bench.worker import Job, results_folder, run_job
from das3r_ns.evaluation.report import shown
from das3r_ns.files.whole import check_output
from das3r_ns.predictor.registry import PredictorOptions, resolve, resolved

BYTES_A_PIXEL = 14
"""Of a frame: its images as prepared and in the scene folder, maps and masks, most of them smaller than the image."""
MIN_RUN_BYTES = 64 << 20
"""Of a run of few Gaussians; ns-train asks for what it takes when it knows how many there are."""
UNKNOWN_FRAMES, UNKNOWN_SIDE_PX = 100, 1280
"""Of a sequence of which all frames are taken, or at their own size, when room is asked for."""


@dataclass(frozen=True)
class Machines:
    """Where the sequences run, and how many together."""

    jobs: int = 1
    """Sequences at a time, dealt out over the GPUs."""
    slurm_partition: str | None = None
    """Submit each sequence to this SLURM partition instead (needs the extra `cluster`)."""
    slurm_hours: float = 4.0
    """Time limit of each of those jobs."""


def bench(
    what: Annotated[str, tyro.conf.Positional],
    data: Path | None = None,
    out: Path | None = None,
    sequences: tuple[str, ...] = (),
    protocol: Annotated[BenchProtocol, tyro.conf.arg(name="")] = BenchProtocol(),  # noqa: B008  (frozen)
    predictors: Annotated[PredictorOptions, tyro.conf.arg(name="")] = PredictorOptions(),  # noqa: B008  (tyro copies it)
    machines: Annotated[Machines, tyro.conf.arg(name="")] = Machines(),
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
        sequences: names of the sequences. Left out, those of the published tables, or all of a folder of clips.
        protocol: what is measured, and what is trained for it.
        predictors: which predictor, and the settings of each.
        machines: where the sequences run.
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
    if machines.jobs < 1:
        raise ValueError(f"--jobs must be 1 or more, got {machines.jobs}")
    stages, frames, methods = protocol.chosen_stages(), protocol.frames_of(set_name), protocol.trained_methods()
    name, reason = resolve(predictors)
    out = out or Path("benchmarks") / f"{set_name}{'-true-masks' if protocol.true_masks else ''}"
    get_console().print(
        f"{len(sources)} sequences of {folder}; predictor {name}, {reason}; stages {', '.join(stages)}."
    )
    todo = [
        Job(
            source=source,
            frames=frames,
            longest_side=protocol.longest_side,
            stages=stages,
            predictors=resolved(predictors),
            methods=methods,
            steps=protocol.steps,
            baseline_steps=protocol.baseline_steps or protocol.steps,
            out=out / source.name,
            again=again,
            true_masks=protocol.true_masks,
        )
        for source in sources
    ]
    _check_room(todo, out)
    table = BenchTable(set_name, methods, notes=protocol.notes(name, methods, frames))
    _run_all(todo, machines, table, out)
    _report(table, [source.name for source in sources], out)
    return table


def _run_all(todo: list[Job], machines: Machines, table: BenchTable, out: Path) -> None:
    """Run the jobs, and write the table anew after each."""

    def done(job: Job) -> None:
        table.rows.append(read_row(job))
        _tell(table, len(todo))
        table.write(out)

    for job in todo:
        (job.out / "results" / "crash.json").unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if machines.slurm_partition is not None:
        run_on_cluster(todo, machines.slurm_partition, machines.slurm_hours, out / "slurm", done, run_job)
    else:
        run_here(todo, machines.jobs, done, "das3r_ns.evaluation.bench.worker")


def _report(table: BenchTable, order: list[str], out: Path) -> None:
    """Write and print the whole table, its rows in the order of the set.

    Raises:
        RuntimeError: every sequence failed.
    """
    table.rows.sort(key=lambda row: order.index(row.sequence))
    paths = table.write(out)
    console = get_console()
    console.print(table.markdown(), markup=False, highlight=False, soft_wrap=True)
    console.print(f"Written to {paths['md']}, {paths['csv'].name}, {paths['json'].name}", highlight=False)
    if all("predict" not in row.stages or "error" in row.stages["predict"] for row in table.rows):
        first = next(iter(table.rows[0].errors.values()), "no reason was left")
        raise RuntimeError(f"every sequence failed, the first with: {first}")


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
