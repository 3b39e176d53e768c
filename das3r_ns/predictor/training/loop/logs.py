"""What a run tells: TensorBoard (curves and mask images), `log.jsonl` (the same numbers, one line a log), a bar.

One of several processes writes; the others count.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from rich import get_console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from das3r_ns.predictor.training.loop.losses import ViewLoss
from das3r_ns.predictor.training.loop.tensorboard import summary_writer
from das3r_ns.predictor.training.loop.validation import Scores, ValidationImages

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

LOSS_NAMES = tuple(f"{part}{view}" for view in (1, 2) for part in ViewLoss._fields)


class Meter:
    """Mean losses and speed since the last reading. Sums stay on the device: reading waits for it, adding does not."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.reset()

    def reset(self) -> None:
        """Begin anew, now."""
        self.sums = torch.zeros(1 + len(LOSS_NAMES), device=self.device)
        self.batches = self.pairs = 0
        self.waited_s = 0.0
        self.start = time.perf_counter()

    def add(self, loss: Tensor, views: tuple[ViewLoss, ...], pairs: int, waited_s: float) -> None:
        """One micro-batch: its loss and parts, its pairs, and how long its data were waited for."""
        parts = torch.stack([loss, *(part for view in views for part in view)])
        self.sums += parts.detach()
        self.batches += 1
        self.pairs += pairs
        self.waited_s += waited_s

    def means(self) -> Tensor:
        """The loss and its parts, as `LOSS_NAMES`, of this process."""
        return self.sums / max(self.batches, 1)

    def speed(self) -> dict[str, float]:
        """Pairs per second of this process, and the share of the time it waited for data."""
        elapsed = time.perf_counter() - self.start
        return {"pairs_per_s": self.pairs / elapsed, "data_wait": self.waited_s / elapsed}


class RunLog:
    """Writes the logs of a run; a context manager. Silent where `active` is False."""

    def __init__(self, folder: Path, total_steps: int, active: bool) -> None:
        self.folder, self.total_steps, self.active = folder, total_steps, active
        self.writer: SummaryWriter | None = None
        columns = (
            TextColumn("{task.description}"),
            *Progress.get_default_columns()[1:3],
            MofNCompleteColumn(),
            TextColumn("steps  loss {task.fields[loss]:.4f}  J {task.fields[j]:.3f}  {task.fields[speed]:.1f} pairs/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=get_console(), disable=not active)
        self.bar = self.progress.add_task(
            "Training", total=total_steps, loss=float("nan"), j=float("nan"), speed=float("nan")
        )

    def __enter__(self) -> RunLog:
        if self.active:
            self.writer = summary_writer(self.folder / "tensorboard")
            self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()
        if self.writer is not None:
            self.writer.close()

    def advance(self, step: int) -> None:
        """So many steps are done."""
        self.progress.update(self.bar, completed=step)

    def training(self, step: int, numbers: dict[str, float]) -> None:
        """Losses, learning rate and speed."""
        self._write(step, {f"train/{name}": value for name, value in numbers.items()})
        self.progress.update(self.bar, loss=numbers["loss"], speed=numbers["pairs_per_s"])

    def validation(self, step: int, scores: Scores, images: ValidationImages | None) -> None:
        """Scores of one set, and its images."""
        numbers = {"J": scores.j, "recall": scores.recall, "criterion": scores.criterion}
        self._write(step, {f"{scores.name}/{name}": value for name, value in numbers.items()})
        self.progress.update(self.bar, j=scores.j)
        if not self.active:
            return
        get_console().print(
            f"step {step}: {scores.name}: J {scores.j:.3f}, recall {scores.recall:.3f} ({scores.frames} frames)",
            highlight=False,
        )
        if self.writer is not None and images is not None:
            self.writer.add_image(f"{scores.name}/seen, truth, predicted", _mosaic(images), step, dataformats="HWC")

    def _write(self, step: int, numbers: dict[str, float]) -> None:
        if not self.active or self.writer is None:
            return
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)
        line: dict[str, Any] = {"step": step, "time": round(time.time(), 2), **numbers}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _mosaic(images: ValidationImages) -> Tensor:
    """Rows of: the image, its true mask, the predicted one."""
    grey = [
        (m * 255).round().to(torch.uint8)[..., None].expand(-1, -1, -1, 3) for m in (images.truth, images.predicted)
    ]
    return torch.cat([images.rgb, *grey], dim=2).flatten(0, 1)
