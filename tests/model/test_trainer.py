"""Our own training step: everything that nerfstudio's does which counts here."""

import pytest
from tiny_run import STEPS, scene_from_truth, tiny_config, train

from das3r_ns.model.schedules import log_linear


def test_learning_rates_follow_their_schedule_in_the_steps_that_are_not_logged_too(tmp_path):
    config = tiny_config("das3r-lite", scene_from_truth(tmp_path / "scene"), tmp_path / "out")
    group = config.optimizers["means"]
    first, last, steps = group["optimizer"].lr, group["scheduler"].lr_final, group["scheduler"].max_steps
    assert STEPS % config.logging.steps_per_log != 0
    _, losses, trainer = train(config)
    assert len(losses) == STEPS
    rate = trainer.optimizers.optimizers["means"].param_groups[0]["lr"]
    assert rate == pytest.approx(log_linear(STEPS, first, last, steps), rel=1e-6)
