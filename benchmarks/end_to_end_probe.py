"""What `end_to_end.py` starts: one command line of ours in this fresh process, with a clock for each of its stages.

    python end_to_end_probe.py RESULT.json das3r predict --data CLIP --out SCENE
    python end_to_end_probe.py RESULT.json ns-train das3r --data CLIP

It knows no more of the code than the names that nerfstudio gives (setup, train, eval_iteration, ...) and
`predict_scene`, so that older commits are measured by the same clock.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTED = "END_TO_END_STARTED"
"""Environment variable: when the parent started this process, by `time.monotonic`, a clock that all processes share."""


class StageClock:
    """Seconds of each stage without those of the stages inside it, so that they add up to the whole."""

    def __init__(self, first: str) -> None:
        self.seconds: dict[str, float] = {first: 0.0}
        self.checkpoint_s: float | None = None
        """When the last checkpoint was saved, since the start."""
        self._running = [first]
        self._started = self._since = float(os.environ.get(STARTED, time.monotonic()))

    def _charge(self) -> None:
        now, name = time.monotonic(), self._running[-1]
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """The time of the `with` block is that of stage `name`."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def time(self, owner: Any, attribute: str, name: str) -> None:
        """Every call of `owner.attribute` is of stage `name`. What `owner` lacks is not timed."""
        function: Callable[..., Any] | None = getattr(owner, attribute, None)
        if function is None:
            return

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.within(name):
                result = function(*args, **kwargs)
            if attribute == "save_checkpoint":
                self.checkpoint_s = time.monotonic() - self._started
            return result

        setattr(owner, attribute, timed)

    def write(self, path: Path) -> None:
        """Write down all that was measured; the last the process does."""
        self._charge()
        torch = sys.modules.get("torch")
        on_gpu = torch is not None and torch.cuda.is_initialized()
        found = {
            "stages": self.seconds,
            "checkpoint_s": self.checkpoint_s,
            "gpu": torch.cuda.get_device_name() if on_gpu and torch is not None else None,
            "gpu_peak_bytes": torch.cuda.max_memory_reserved() if on_gpu and torch is not None else None,
        }
        path.write_text(json.dumps(found), encoding="utf-8")


def _time_training(clock: StageClock) -> Callable[[], None]:
    """`ns-train`, its classes timed as soon as it is known which they are."""
    with clock.within("imports"):
        import nerfstudio.scripts.train as script

    run = script.main

    @functools.wraps(run)
    def main(config: Any) -> None:
        trainer, datamanager = config._target, config.pipeline.datamanager
        clock.time(trainer, "setup", "set-up, the rest")
        clock.time(trainer, "train", "training steps")
        clock.time(trainer, "eval_iteration", "evaluation")
        clock.time(trainer, "save_checkpoint", "saving checkpoints")
        clock.time(trainer, "finish", "report")
        clock.time(datamanager._target, "__init__", "set-up of the data")
        clock.time(datamanager.dataparser._target, "get_dataparser_outputs", "scene")
        clock.time(config.pipeline.model._target, "populate_modules", "set-up of the model")
        with clock.within("checks, configuration"):
            run(config)

    script.main = main
    return script.entrypoint


def _time_prediction(clock: StageClock) -> Callable[[], None]:
    """`das3r predict`."""
    with clock.within("imports"):
        import das3r_ns.dataparser.predict as command
        from das3r_ns.cli import main

    clock.time(command, "predict_scene", "scene")
    return main


def main() -> None:
    result, program = Path(sys.argv[1]), sys.argv[2]
    clock = StageClock("Python's start")
    sys.argv = sys.argv[2:]
    command = _time_training(clock) if program == "ns-train" else _time_prediction(clock)
    atexit.register(clock.write, result)  # also where the command ends by `sys.exit`
    with clock.within("options of the command line"):
        command()


if __name__ == "__main__":
    main()
