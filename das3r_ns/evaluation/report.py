"""Metrics as a table on the screen."""

from typing import Any

from rich.console import Console
from rich.table import Table

WAYS = {
    "predicted": "as predicted",
    "trained": "after training",
    "refined": "test poses refined on static pixels",
}
"""What is said of each way of measuring."""

ROWS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "poses": (
        ("ate", "ATE (units of the ground truth)", "{:.4f}"),
        ("ate_percent_of_path", "ATE, % of the path", "{:.2f}"),
        ("rpe_translation", "RPE translation (units of the ground truth)", "{:.4f}"),
        ("rpe_rotation_deg", "RPE rotation (deg)", "{:.3f}"),
        ("focal_error_percent", "focal length error (%)", "{:.2f}"),
    ),
    "masks": (
        ("j_mean", "J mean", "{:.3f}"),
        ("j_recall", "J recall", "{:.3f}"),
        ("f_mean", "F mean", "{:.3f}"),
        ("moving_marked", "moving pixels marked (share; misses leave ghosts)", "{:.3f}"),
        ("static_marked", "static pixels marked (share; false alarms leave holes)", "{:.4f}"),
    ),
    "psnr": (
        ("paper_psnr", "paper PSNR (dB)", "{:.2f}"),
        ("static_psnr", "static PSNR (dB)", "{:.2f}"),
        ("static_ssim", "static SSIM", "{:.4f}"),
        ("clean_psnr", "clean PSNR, behind the moving object (dB)", "{:.2f}"),
        ("static_lpips", "LPIPS, moving pixels blackened", "{:.4f}"),
    ),
}


def shown(value: float | int | None, pattern: str) -> str:
    """A number as text; an en dash where there is none."""
    return "–" if value is None else pattern.format(value)


def print_summary(metrics: dict[str, Any], console: Console) -> None:
    """One table: measures down, ways of measuring across."""
    measured = [part for part in ROWS if part in metrics]
    ways = [way for way in WAYS if any(way in metrics[part] for part in measured)]
    table = Table(title=metrics.get("scene") or (metrics.get("run") or {}).get("config"))
    table.add_column("measure")
    for way in ways:
        table.add_column(WAYS[way], justify="right")
    for part in measured:
        for key, label, pattern in ROWS[part]:
            values = [metrics[part].get(way, {}).get(key) for way in ways]
            if any(value is not None for value in values):
                table.add_row(label, *(shown(value, pattern) for value in values))
        table.add_section()
    if metrics.get("num_gaussians") is not None:
        table.add_row("Gaussians", *(f"{metrics['num_gaussians']:,}" if i == 0 else "" for i in range(len(ways))))
    console.print(table)
    for part, reason in metrics.get("left_out", {}).items():
        console.print(f"{part} left out: {reason}", style="dim", highlight=False)
