"""Collect what the workers wrote: rows, and the files that hold them (Markdown to read, CSV and JSON to work with)."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from das3r_ns.evaluation.bench import published
from das3r_ns.evaluation.bench.worker import Job, results_folder
from das3r_ns.evaluation.comparison import THRESHOLDS
from das3r_ns.files.json_files import write_json
from das3r_ns.files.whole import whole_file, write_text_whole

WAYS = ("predicted", "trained", "refined")
"""Of placing the test cameras; see `measure_renders`."""
MASK_KEYS = ("j_mean", "j_recall", "f_mean", "f_recall", "moving_marked", "static_marked")
POSE_KEYS = ("ate", "ate_percent_of_path", "rpe_translation", "rpe_rotation_deg", "focal_error_percent")
IMAGE_KEYS = ("paper_psnr", "static_psnr", "static_ssim", "clean_psnr", "static_lpips")


@dataclass(frozen=True)
class Row:
    """Everything known about one sequence."""

    sequence: str
    stages: dict[str, dict[str, Any]]
    """What each stage wrote, by its name."""

    def values(self, stage: str) -> dict[str, Any]:
        """What a stage found; empty if it failed or was not run."""
        return self.stages.get(stage, {}).get("values", {})

    def images(self, method: str, way: str) -> dict[str, Any]:
        """PSNR and the like of a trained method, for one way of placing the test cameras; empty if there is none."""
        return self.values(f"psnr-{method}").get("psnr", {}).get(way, {})

    def cost(self, stage: str, what: str) -> float | None:
        """Seconds or memory of a stage."""
        return self.stages.get(stage, {}).get("cost", {}).get(what)

    @property
    def seconds_per_frame(self) -> float | None:
        """Of the prediction."""
        frames, seconds = self.values("prepare").get("frames"), self.cost("predict", "seconds")
        return seconds / frames if frames and seconds is not None else None

    @property
    def errors(self) -> dict[str, str]:
        """Why stages failed, by stage."""
        return {name: record["error"] for name, record in self.stages.items() if "error" in record}


@dataclass
class BenchTable:
    """All rows of a benchmark and what they were made with."""

    set_name: str
    methods: tuple[str, ...]
    """Trained ones; empty when nothing was trained."""
    rows: list[Row] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    """Command, machine, date, settings."""

    def write(self, folder: Path) -> dict[str, Path]:
        """Write `table.md`, `table.csv` and `table.json`, and `calibration.png` where masks were measured."""
        from das3r_ns.evaluation.figures import draw_calibration

        paths = {kind: folder / f"table.{kind}" for kind in ("md", "csv", "json")}
        if counts := self.calibration():
            title = f"Calibration of dynamic maps, {self.set_name}"
            path, error = draw_calibration(counts, folder / "calibration.png", title)
            self.notes["calibration error of the masks"] = f"{error:.4f} ({path.name})"
        write_text_whole(paths["md"], self.markdown())
        records = self.records()
        with whole_file(paths["csv"]) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(records[0]) if records else [])
            writer.writeheader()
            writer.writerows(records)
        lines = [line for kind in published.TABLES for line in kind.get(self.set_name, ())]
        write_json(
            paths["json"],
            {
                "set": self.set_name,
                "notes": self.notes,
                "rows": records,
                "published": [{"method": line.method, "source": line.source, **line.values} for line in lines],
                "published_das3r_paper_psnr": published.DAS3R_PSNR.get(self.set_name, {}),
            },
        )
        return paths

    def markdown(self) -> str:
        """The table to read."""
        from das3r_ns.evaluation.bench.markdown import as_markdown

        return as_markdown(self)

    def records(self) -> list[dict[str, Any]]:
        """One flat record for each sequence and trained method (one for each sequence when none was trained)."""
        left_out = self.leave_one_out()
        return [
            self._record(row, method, left_out.get(row.sequence))
            for row in self.rows
            for method in self.methods or (None,)
        ]

    def _record(self, row: Row, method: str | None, left_out: float | None) -> dict[str, Any]:
        run, predicted = row.values(f"psnr-{method}"), row.values("predict")
        train = f"train-{method}"
        return {
            "set": self.set_name,
            "sequence": row.sequence,
            "frames": row.values("prepare").get("frames"),
            "predictor": predicted.get("predictor"),
            "frames_posed": predicted.get("frames_posed"),
            "method": method,
            "steps": run.get("steps"),
            "num_gaussians": run.get("num_gaussians"),
            **{key: row.values("masks").get(key) for key in MASK_KEYS},
            "j_leave_one_out": left_out,
            **{key: row.values("poses").get(key) for key in POSE_KEYS},
            "ate_after_training": (run.get("poses") or {}).get("ate"),
            **{
                f"{key}_{way}": row.images(method, way).get(key) if method is not None else None
                for way in WAYS
                for key in IMAGE_KEYS
            },
            "published_das3r_paper_psnr": published.DAS3R_PSNR.get(self.set_name, {}).get(row.sequence),
            "seconds_predict": row.cost("predict", "seconds"),
            "seconds_train": row.cost(train, "seconds"),
            "seconds_measure": row.cost(f"psnr-{method}", "seconds"),
            "peak_memory_gb_predict": row.cost("predict", "peak_memory_gb"),
            "peak_memory_gb_train": row.cost(train, "peak_memory_gb"),
            "peak_gpu_memory_gb_predict": row.cost("predict", "peak_gpu_memory_gb"),
            "peak_gpu_memory_gb_train": row.cost(train, "peak_gpu_memory_gb"),
            "error": "; ".join(f"{stage}: {why}" for stage, why in row.errors.items()) or None,
        }

    def calibration(self) -> dict[str, tuple[list[int], list[int], list[float]]]:
        """Of each sequence whose masks were measured: pixels in equal bins of the probability, how many of them move,
        and the sum of their probabilities."""
        measured = {row.sequence: row.values("masks").get("calibration") for row in self.rows}
        return {name: (c["pixels"], c["moving"], c["probability"]) for name, c in measured.items() if c is not None}

    def leave_one_out(self) -> dict[str, float]:
        """J mean of each sequence at the threshold that is best on all the others.

        It stays near the J that counts if the threshold was not chosen to please these sequences. Empty for fewer
        than three sequences.
        """
        curves = {row.sequence: row.values("masks")["j_mean_by_threshold"] for row in self.rows if row.values("masks")}
        if len(curves) < 3:
            return {}
        result = {}
        for name, curve in curves.items():
            others = [other for key, other in curves.items() if key != name]
            best = max(THRESHOLDS, key=lambda t: sum(other[str(t)] for other in others))
            result[name] = curve[str(best)]
        return result


def read_row(job: Job) -> Row:
    """What the stages of a job wrote; leftovers of other jobs in the same folder are passed over."""
    wanted = {"prepare", "predict", "crash", *job.stages}
    wanted |= {f"{stage}-{method}" for stage in ("train", "psnr") for method in job.methods if "psnr" in job.stages}
    paths = sorted(results_folder(job.out).glob("*.json"))
    return Row(
        job.source.name,
        {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths if path.stem in wanted},
    )
