"""The cut of staticness that the viewer's slider was left at, kept in the run's folder.

Gaussians below it are neither rendered nor exported. Every command that loads the run takes it from there and says so,
so that an export holds what the viewer showed. `config.yml` stays as training wrote it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nerfstudio.utils.rich_utils import CONSOLE

from das3r_ns.files.json_files import read_json_object, write_json
from das3r_ns.files.values import number
from das3r_ns.runs.config_file import RunError

FILE = "staticness_cut.json"
_KEY = "cull_staticness"


def store_cut(run: Path, cut: float | None) -> None:
    """Keep a cut, 0..1, with a run; None goes back to the one of its `config.yml`.

    Raises:
        OSError: the run's folder cannot be written.
    """
    if cut is None:
        (Path(run) / FILE).unlink(missing_ok=True)
    else:
        write_json(Path(run) / FILE, {_KEY: round(cut, 4)})


def stored_cut(run: Path) -> float | None:
    """The cut that is kept with a run, None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = Path(run) / FILE
    if not path.exists():
        return None
    remedy = "Delete it to go back to the cut of config.yml."
    try:
        cut = number(read_json_object(path, RunError), _KEY, str(path), RunError)
    except KeyError:
        raise RunError(f"{path} names no {_KEY}. {remedy}") from None
    except RunError as error:
        raise RunError(f"{error} {remedy}") from error
    if not 0 <= cut <= 1:
        raise RunError(f"{path}: {_KEY} is {cut:g}, and staticness lies between 0 and 1. {remedy}")
    return cut


def use_cut(model: Any, cut: float | None, run: Path) -> None:
    """Let a model of this package, just loaded, cut where the viewer's slider was left; says so."""
    if cut is None or cut == model.cull_staticness:
        return
    CONSOLE.print(
        f"Cut of staticness {cut:.2f}, as set in the viewer; {model.cull_staticness:.2f} is the method's (delete "
        f"{Path(run) / FILE} to go back to it).",
        soft_wrap=True,
        highlight=False,
    )
    model.cull_staticness = cut
