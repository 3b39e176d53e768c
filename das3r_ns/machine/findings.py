"""What a check of the machine found: a sentence, and the command that helps."""

from __future__ import annotations

from dataclasses import dataclass

WITHOUT_KERNELS = "Or go on without a compiler: --pipeline.model.rasterizer cpu (slower)."
WITHOUT_GPU = "Or train on the CPU: --machine.device-type cpu (ns-train das3r-lite makes a preview in minutes)."


class MachineError(RuntimeError):
    """The machine lacks what training on its GPU needs; the message says what, and the command that helps."""


@dataclass(frozen=True)
class Finding:
    """One requirement and what was found of it."""

    subject: str
    good: bool
    text: str
    """What was found; where that is not good, a sentence that also says what is needed."""
    help: str = ""
    """The command that helps, as a sentence."""
    choice: str = ""
    """What can be done instead."""

    def sentence(self) -> str:
        """Everything in one paragraph."""
        return " ".join(part for part in (self.text, self.help, self.choice) if part)
