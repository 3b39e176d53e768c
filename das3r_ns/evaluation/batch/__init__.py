"""Many clips in one command: predicted, trained, rendered and exported, one row of a table each (`command.batch`)."""

from das3r_ns.evaluation.batch.command import batch

__all__ = ["batch"]
