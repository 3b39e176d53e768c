"""The check of the machine at the start of `ns-train`, before nerfstudio imports its methods.

nerfstudio imports the data parsers of plugins early and all of its models after them, which takes most of its start.
What the machine lacks is said in between. The check of the whole run (`das3r_ns.dataparser.trainer.check_run`), once
the command line is understood, looks again, since settings may come from a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

METHODS = ("das3r", "das3r-lite", "das3r-paper")
"""The methods of `das3r_ns.config`, which is imported later."""


def default_device() -> Literal["cuda", "cpu"]:
    """Device of a training that names none.

    A GPU that torch cannot use counts: training on it stops with what is missing, instead of taking hours on the CPU.
    """
    import torch

    from das3r_ns.machine.hardware import gpus

    return "cuda" if torch.cuda.is_available() or gpus() else "cpu"


def check_at_start(command: list[str]) -> None:
    """See that the GPU can be trained on, where the command line asks for that beyond doubt. Builds nothing.

    Args:
        command: program and arguments. Nothing is looked at unless it is `ns-train` with a method of this package;
            a request for help, or settings from a file, are left to what comes later.
    Raises:
        MachineError: something is missing.
    """
    if len(command) < 2 or Path(command[0]).stem != "ns-train" or command[1] not in METHODS:
        return
    arguments = command[2:]
    if {"-h", "--help"} & set(arguments) or _value(arguments, "--load-config") is not None:
        return
    device = _value(arguments, "--machine.device-type")
    if (default_device() if device is None else device) != "cuda":
        return
    from das3r_ns.machine.checks import draws_on_cpu, gpu_findings
    from das3r_ns.machine.findings import MachineError
    from das3r_ns.runtime.failures import end_in_a_sentence, program_name

    end_in_a_sentence(program_name())
    rasterizer = "cpu" if draws_on_cpu(_value(arguments, "--pipeline.model.rasterizer") or "auto") else "auto"
    for finding in gpu_findings(rasterizer):
        if not finding.good:
            raise MachineError(finding.sentence())


def _value(arguments: list[str], option: str) -> str | None:
    """The last value that an option is given, with a space or with "=", with hyphens or with underscores."""
    value = None
    for word, after in zip(arguments, [*arguments[1:], ""]):
        name, equals, given = word.partition("=")
        if name.replace("_", "-") == option:
            value = given if equals else after
    return value
