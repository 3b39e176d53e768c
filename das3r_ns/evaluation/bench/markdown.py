"""A benchmark as Markdown: one section a kind of measure, our rows first, published ones below with their source."""

from collections.abc import Callable, Iterable, Sequence

from das3r_ns.evaluation.bench import published
from das3r_ns.evaluation.bench.published import Published
from das3r_ns.evaluation.bench.table import WAYS, BenchTable, Row
from das3r_ns.evaluation.comparison import mean_of_known
from das3r_ns.evaluation.report import shown

MASK_COLUMNS = (
    ("j_mean", "J mean", "{:.3f}"),
    ("j_recall", "J recall", "{:.3f}"),
    ("f_mean", "F mean", "{:.3f}"),
    ("moving_marked", "moving pixels marked", "{:.3f}"),
    ("static_marked", "static pixels marked", "{:.4f}"),
)
POSE_COLUMNS = (
    ("ate", "ATE", "{:.4f}"),
    ("ate_percent_of_path", "ATE, % of path", "{:.2f}"),
    ("rpe_translation", "RPE translation", "{:.4f}"),
    ("rpe_rotation_deg", "RPE rotation, deg", "{:.3f}"),
    ("focal_error_percent", "focal error, %", "{:.2f}"),
)
LEFT_OUT = "J, threshold chosen on the other sequences"
COST_COLUMNS = ("predictor", "frames", "predict, s a frame", "peak memory, GB")
PSNR_COLUMNS = (
    "sequence", "method", "paper PSNR p / t / r", "static PSNR p / t / r", "static SSIM p", "clean PSNR p", "LPIPS p",
    "Gaussians", "steps", "train, s", "GPU memory, GB", "DAS3R, paper PSNR [V]",
)  # fmt: skip
PSNR_LEGEND = (
    "Paper PSNR counts moving pixels as perfect; static PSNR leaves them out; clean PSNR is over the pixels behind the "
    "moving object. Test poses: *p* as predicted (the published protocol), *t* with what training learned about "
    "cameras, *r* refined on static pixels of the test frame."
)


def as_markdown(table: BenchTable) -> str:
    """The whole benchmark."""
    blocks = [f"# das3r bench {table.set_name}", "\n".join(f"- {key}: {value}" for key, value in table.notes.items())]
    if any("masks" in row.stages for row in table.rows):
        blocks.append(_masks(table))
    if any("poses" in row.stages for row in table.rows):
        blocks.append(_poses(table))
    if table.methods:
        blocks.append(_psnr(table))
    failures = [(row.sequence, stage, why) for row in table.rows for stage, why in row.errors.items()]
    if failures:
        lines = [(name, stage, " ".join(why.split()).replace("|", "/")) for name, stage, why in failures]
        blocks.append(_grid("What failed", ("sequence", "stage", "why"), lines))
    return "\n\n".join(blocks) + "\n"


def _masks(table: BenchTable) -> str:
    left_out = table.leave_one_out()
    lines = []
    for row in table.rows:
        found = [shown(row.values("masks").get(key), pattern) for key, _, pattern in MASK_COLUMNS]
        lines.append([row.sequence, *found, shown(left_out.get(row.sequence), "{:.3f}"), *_cost(row)])
    means = [
        _mean(table, lambda row, key=key: row.values("masks").get(key), pattern) for key, _, pattern in MASK_COLUMNS
    ]
    across = shown(mean_of_known(left_out.values()), "{:.3f}")
    lines.append([_mean_of(table, "masks"), *means, across, *_mean_cost(table)])
    keys = [key for key, _, _ in MASK_COLUMNS]
    lines += [[*_published(line, keys), "–", *_no_cost()] for line in published.MASKS.get(table.set_name, ())]
    titles = ("sequence", *(title for _, title, _ in MASK_COLUMNS), LEFT_OUT, *COST_COLUMNS)
    return _grid("Motion masks", titles, lines)


def _poses(table: BenchTable) -> str:
    lines = []
    for row in table.rows:
        found = [shown(row.values("poses").get(key), pattern) for key, _, pattern in POSE_COLUMNS]
        lines.append([row.sequence, *found, *_cost(row)])
    means = [
        _mean(table, lambda row, key=key: row.values("poses").get(key), pattern) for key, _, pattern in POSE_COLUMNS
    ]
    lines.append([_mean_of(table, "poses"), *means, *_mean_cost(table)])
    keys = [key for key, _, _ in POSE_COLUMNS]
    lines += [[*_published(line, keys), *_no_cost()] for line in published.POSES.get(table.set_name, ())]
    return _grid("Cameras", ("sequence", *(title for _, title, _ in POSE_COLUMNS), *COST_COLUMNS), lines)


def _psnr(table: BenchTable) -> str:
    reference = published.DAS3R_PSNR.get(table.set_name, {})
    lines = []
    for row in table.rows:
        for method in table.methods:
            run, train = row.values(f"psnr-{method}"), f"train-{method}"
            lines.append(
                [
                    row.sequence, method, *_image_cells([row], method),
                    shown(run.get("num_gaussians"), "{:,}"), shown(run.get("steps"), "{}"),
                    shown(row.cost(train, "seconds"), "{:.0f}"), shown(row.cost(train, "peak_gpu_memory_gb"), "{:.1f}"),
                    shown(reference.get(row.sequence), "{:.2f}"),
                ]
            )  # fmt: skip
    for method in table.methods:
        measured = [row for row in table.rows if row.images(method, "predicted")]
        compared = [row for row in measured if row.sequence in reference]
        lines.append(_psnr_mean(f"**mean of {len(measured)}**", measured, method, None))
        if compared:
            theirs = mean_of_known(reference[row.sequence] for row in compared)
            lines.append(_psnr_mean(f"**mean of the {len(compared)} published**", compared, method, theirs))
    for line in published.PSNR.get(table.set_name, ()):
        value = shown(line.values.get("paper_psnr"), "{:.2f}")
        lines.append([f"published mean {line.source}", f"*{line.method}*", value, *["–"] * (len(PSNR_COLUMNS) - 3)])
    return _grid("Static reconstruction", PSNR_COLUMNS, lines, PSNR_LEGEND)


def _psnr_mean(label: str, rows: Sequence[Row], method: str, published_mean: float | None) -> list[str]:
    seconds = mean_of_known(row.cost(f"train-{method}", "seconds") for row in rows)
    return [
        label, method, *_image_cells(rows, method), "", "", shown(seconds, "{:.0f}"), "",
        shown(published_mean, "{:.2f}"),
    ]  # fmt: skip


def _image_cells(rows: Iterable[Row], method: str) -> list[str]:
    """Paper PSNR and static PSNR for each way of placing the test cameras, then SSIM, clean PSNR and LPIPS for the
    first; means where there is more than one row."""
    rows = list(rows)

    def mean(way: str, key: str) -> float | None:
        return mean_of_known(row.images(method, way).get(key) for row in rows)

    psnrs = [" / ".join(shown(mean(way, key), "{:.2f}") for way in WAYS) for key in ("paper_psnr", "static_psnr")]
    others = (("static_ssim", "{:.4f}"), ("clean_psnr", "{:.2f}"), ("static_lpips", "{:.4f}"))
    return [*psnrs, *(shown(mean("predicted", key), pattern) for key, pattern in others)]


def _cost(row: Row) -> list[str]:
    return [
        row.values("predict").get("predictor") or "failed",
        shown(row.values("prepare").get("frames"), "{}"),
        shown(row.seconds_per_frame, "{:.2f}"),
        _memory(row),
    ]


def _memory(row: Row) -> str:
    """Peak of the prediction, and on the GPU where there was one."""
    gpu = row.cost("predict", "peak_gpu_memory_gb")
    return shown(row.cost("predict", "peak_memory_gb"), "{:.1f}") + ("" if gpu is None else f", GPU {gpu:.1f}")


def _mean_cost(table: BenchTable) -> list[str]:
    return [
        "",
        "",
        _mean(table, lambda row: row.seconds_per_frame, "{:.2f}"),
        _mean(table, lambda row: row.cost("predict", "peak_memory_gb"), "{:.1f}"),
    ]


def _no_cost() -> list[str]:
    return ["published", *["–"] * (len(COST_COLUMNS) - 1)]


def _mean(table: BenchTable, value: Callable[[Row], float | None], pattern: str) -> str:
    return shown(mean_of_known(value(row) for row in table.rows), pattern)


def _mean_of(table: BenchTable, stage: str) -> str:
    return f"**mean of {sum(1 for row in table.rows if row.values(stage))}**"


def _published(line: Published, keys: Sequence[str]) -> list[str]:
    return [f"*{line.method}* {line.source}", *(shown(line.values.get(key), "{:.3f}") for key in keys)]


def _grid(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]], legend: str = "") -> str:
    head = [f"## {title}", *([legend] if legend else [])]
    body = [_line(columns), "|" + "---|" * len(columns), *map(_line, lines)]
    return "\n\n".join([*head, "\n".join(body)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
