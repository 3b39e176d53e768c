"""Evaluation: metrics (pure functions), the `das3r eval` and `das3r bench` runners, plots."""
