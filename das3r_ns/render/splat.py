"""The splat of a run as a PLY, with a choice of what stays in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from das3r_ns.files.whole import check_output, whole_file
from das3r_ns.render.run import only_ours

if TYPE_CHECKING:
    from das3r_ns.runs.loading import LoadedRun

SPLAT_BYTES = 62 * 4
"""Of one Gaussian in a PLY: position, normal, harmonics to degree 3, opacity, scale, rotation."""
MIN_EXPORTED_LOGIT = -5.5373
"""Of an opacity: nerfstudio's exporter leaves out Gaussians below, an opacity of 1 / 255."""


def export_splat(load_config: Path, out: Path = Path("exports/splat.ply"), keep_dynamic: bool = False) -> Path:
    """Write the model as a PLY, as `ns-export gaussian-splat` does, with a say in what is kept.

    Args:
        load_config: config.yml of a finished training run.
        out: PLY file to write.
        keep_dynamic: write Gaussians that are not static as well, instead of leaving out those whose staticness is
            below the method's `cull_staticness`.

    Raises:
        RunError: there is no such run, nothing of it can be read, or it is of another method.
        OSError: the file cannot be written, or has too little room; one that was there before is still whole.
    """
    from das3r_ns.runs import loading

    check_output(out, 0, "the splat")
    return write_splat(loading.load_run(load_config, "inference", change=only_ours(load_config, keep_dynamic)), out)


def write_splat(run: LoadedRun, out: Path) -> Path:
    """Write the model of a loaded run as a PLY, as `export_splat`.

    Raises:
        OSError: the file cannot be written, or has too little room; one that was there before is still whole.
    """
    from nerfstudio.scripts import exporter

    from das3r_ns.runs.host import loaded_already

    model = run.pipeline.model
    if not bool((model.opacities > MIN_EXPORTED_LOGIT).any()):
        raise ValueError(
            f"none of the {model.num_points} Gaussians would be in the splat: none is as static as the cut of "
            f"staticness, {model.cull_staticness:.2f}, and visible. Lower the cut in the viewer, or keep all with "
            "--keep-dynamic."
        )
    check_output(out, SPLAT_BYTES * int(model.num_points), "the splat")
    with whole_file(out, what="the splat") as part, loaded_already(exporter, run):
        exporter.ExportGaussianSplat(
            load_config=run.config_path, output_dir=part.parent, output_filename=part.name
        ).main()
    return out
