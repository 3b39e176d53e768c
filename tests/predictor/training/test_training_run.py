"""Training itself: what learns, what a step computes, and a run from the first step to weights that predict."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from tiny_training import MASKS_ALONE, SMALL, clip_set_of_module, narrow_heads, random_batch

from das3r_ns.predictor.network import weights
from das3r_ns.predictor.network.inference import predict_pairs
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.weights import load_network
from das3r_ns.predictor.training.loop.averages import WeightAverage
from das3r_ns.predictor.training.loop.checkpoint import load_checkpoint
from das3r_ns.predictor.training.loop.config import DataConfig, TrainPredictorConfig
from das3r_ns.predictor.training.loop.losses import LossConfig, ViewPrediction, pair_loss
from das3r_ns.predictor.training.loop.parts import parameter_groups, select_parts
from das3r_ns.predictor.training.loop.schedule import OptimConfig
from das3r_ns.predictor.training.loop.step import TrainingStep
from das3r_ns.predictor.training.loop.train import train_predictor
from das3r_ns.predictor.training.loop.validation import jaccard

_narrow_heads = pytest.fixture(autouse=True)(narrow_heads)
clip_set = pytest.fixture(scope="module")(clip_set_of_module)


def config_for(clip_set: Path, out: Path, **changes) -> TrainPredictorConfig:
    """Six pairs an epoch, two a step: three steps, one epoch."""
    data = DataConfig(clips=clip_set, pairs_per_epoch=6, sizes=((32, 48),), val_pairs=3, workers=0, max_stride=3)
    config = TrainPredictorConfig(
        out,
        data,
        weights="scratch",
        network=SMALL,
        train="all",
        batch_size=2,
        device="cpu",
        log_every=1,
        checkpoint_every=2,
        optim=OptimConfig(learning_rate=1e-3, warmup_epochs=0.5, epochs=1),
    )
    return replace(config, **changes)


@pytest.mark.parametrize("train", ["heads", "decoder", "all"])
@pytest.mark.parametrize("loss", [LossConfig(), MASKS_ALONE], ids=["published", "masks"])
def test_exactly_what_was_chosen_gets_a_gradient(train, loss):
    network = PairwiseNetwork(SMALL)
    learning = select_parts(network, train, loss.needs_points)
    # From the start weights to data-parallel training: a parameter without a gradient would hang its processes.
    TrainingStep(network, train, loss, symmetrise=True)(random_batch()).loss.backward()
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == learning.keys()
    heads_alone = all(name.startswith("downstream_head_dynamic_mask") for name in learning)
    assert heads_alone == (train == "heads")
    assert any(name.startswith("dec_blocks2.") for name in learning) == (train != "heads")
    assert any(name.startswith("enc_blocks.") for name in learning) == (train == "all")


def test_biases_and_norms_do_not_decay():
    learning = select_parts(PairwiseNetwork(SMALL), "all", needs_points=True)
    decaying, others = parameter_groups(learning, 0.05)
    assert decaying["weight_decay"] == 0.05
    assert others["weight_decay"] == 0
    assert {p.ndim for p in others["params"]} == {1}
    assert len(decaying["params"]) + len(others["params"]) == len(learning)


def test_a_step_with_frozen_features_is_the_plain_computation_of_both_directions():
    network = PairwiseNetwork(SMALL).eval()  # without dropout, to compare
    batch = random_batch()
    expected = torch.zeros(())
    truths = batch.symmetrised().truths()
    images1, images2 = batch.view1.images(), batch.view2.images()
    both = network(torch.cat([images1, images2]), torch.cat([images2, images1]))
    predictions = [
        ViewPrediction(both.dynamic_prob1.logit(), both.pointmap1.detach(), both.confidence1.detach()),
        ViewPrediction(both.dynamic_prob2.logit(), both.pointmap2.detach(), both.confidence2.detach()),
    ]
    expected, _ = pair_loss(predictions, truths, LossConfig())
    expected.backward()
    plain = {n: p.grad.clone() for n, p in network.mask_heads.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    select_parts(network, "heads", needs_points=True)
    found = TrainingStep(network, "heads", LossConfig(), symmetrise=True)(batch).loss
    found.backward()
    torch.testing.assert_close(found, expected)
    for name, parameter in network.mask_heads.named_parameters():
        if name in plain:
            torch.testing.assert_close(parameter.grad, plain[name], rtol=1e-3, atol=1e-5)


def test_the_average_follows_the_weights_and_is_put_back():
    weight = torch.nn.Parameter(torch.zeros(2))
    average = WeightAverage({"w": weight}, decay=0.5)
    with torch.no_grad():
        weight.fill_(1.0)
    average.update(step=1000)
    with average:
        assert weight.tolist() == [0.5, 0.5]
    assert weight.tolist() == [1.0, 1.0]


def test_jaccard_counts_known_pixels_only_and_two_empty_masks_agree():
    predicted = torch.tensor([[[True, True, False, False]], [[False] * 4]])
    truth = torch.tensor([[[True, False, True, False]], [[False] * 4]])
    known = torch.tensor([[[True, True, True, True]], [[True] * 4]])
    assert jaccard(predicted, truth, known).tolist() == [pytest.approx(1 / 3), 1.0]
    known[0, 0, 1] = False
    assert jaccard(predicted, truth, known)[0] == 0.5


def test_a_run_writes_logs_and_weights_that_the_predictor_loads_as_they_are(clip_set, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "_notice_given", False)
    out = tmp_path / "run"
    final = train_predictor(config_for(clip_set, out))
    assert final == out / "final"
    assert not weights._notice_given  # weights that began at random are under no licence but the user's
    network, report = load_network(final)
    assert not report.mask_heads_missing
    assert network.config == SMALL
    learned = load_checkpoint(out / "last.ckpt").learned
    started = load_network(out / "start")[0].state_dict()
    assert learned
    for name, value in learned.items():
        torch.testing.assert_close(network.state_dict()[name], value, rtol=0, atol=0)
    assert any((started[name] != value).any() for name, value in learned.items())
    pairs = predict_pairs(network, torch.zeros(2, 3, 32, 48), [(0, 1), (1, 0)])
    assert pairs.dynamic_prob1.shape == (2, 32, 48)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[0]["train/learning_rate"] == 0  # the warm-up begins at 0
    assert lines[1]["train/learning_rate"] == pytest.approx(1e-3 * (1 / 3) / 0.5)
    name = f"{clip_set.name}/val"
    assert 0 <= lines[-1][f"{name}/recall"] <= 1
    assert lines[-1][f"{name}/criterion"] > 0
    assert (out / "best" / "model.safetensors").is_file()
    event = next((out / "tensorboard").iterdir()).read_bytes()
    assert b"seen, truth, predicted" in event


@pytest.mark.gpu
@pytest.mark.parametrize("train", ["heads", "decoder", "all"])
def test_on_a_gpu_frozen_features_in_bfloat16_train_and_the_memory_is_logged(train, clip_set, tmp_path):
    config = config_for(clip_set, tmp_path / "run", device="cuda", train=train)
    train_predictor(config)
    lines = [json.loads(line) for line in (config.out / "log.jsonl").read_text().splitlines()]
    assert lines[0]["train/peak_memory_gib"] > 0
    train_predictor(replace(config, out=tmp_path / "cpu", device="cpu", precision="float32"))
    expected = json.loads((tmp_path / "cpu" / "log.jsonl").read_text().splitlines()[0])
    assert lines[0]["train/loss"] == pytest.approx(expected["train/loss"], rel=0.05)  # bfloat16, other dropout


def test_a_stopped_run_resumes_to_the_same_weights_with_average_and_accumulation(clip_set, tmp_path):
    optim = OptimConfig(learning_rate=1e-3, warmup_epochs=0.5, epochs=2, ema_decay=0.9, max_grad_norm=1.0)
    whole = config_for(clip_set, tmp_path / "whole", optim=optim, batch_size=1, accumulate=2, train="heads")
    halves = replace(whole, out=tmp_path / "halves")
    train_predictor(whole)
    assert train_predictor(replace(halves, stop_after_steps=4)) == halves.out  # no end, no final weights
    assert not (halves.out / "final").exists()
    train_predictor(replace(halves, resume=True))
    for folder in ("final", "best"):
        expected, found = (load_network(run.out / folder)[0].state_dict() for run in (whole, halves))
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=0)
    trained = load_checkpoint(whole.out / "last.ckpt")
    assert trained.average is not None
    final = load_network(whole.out / "final")[0].state_dict()
    name = next(iter(trained.learned))
    torch.testing.assert_close(final[name], trained.average[name], rtol=0, atol=0)  # the average is what is written
    assert (final[name] != trained.learned[name]).any()


def test_a_resume_that_would_see_other_data_is_refused(clip_set, tmp_path):
    config = config_for(clip_set, tmp_path / "run", stop_after_steps=2)
    train_predictor(config)
    with pytest.raises(FileExistsError, match="--resume"):
        train_predictor(config)
    with pytest.raises(ValueError, match="seed: 0 then, 1 now"):
        train_predictor(replace(config, resume=True, seed=1))
    with pytest.raises(ValueError, match="other --train"):
        train_predictor(replace(config, resume=True, train="heads"))
    (config.out / "last.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be resumed from"):
        train_predictor(replace(config, resume=True))


def test_missing_depth_and_damaged_images_are_told_once_skipped_and_counted(clip_set, tmp_path, capsys):
    import shutil

    broken = tmp_path / "set"
    shutil.copytree(clip_set, broken)
    clip = broken / "train" / "clip_00000"
    (clip / "depth" / "00002.npy").unlink()
    (clip / "images" / "00003.png").write_bytes(b"no image")
    data = DataConfig(clips=broken, pairs_per_epoch=24, sizes=((32, 48),), val_pairs=1, workers=0, max_stride=3)
    train_predictor(config_for(broken, tmp_path / "run", data=data))
    printed = "".join(capsys.readouterr().out.split())  # the console breaks lines where it likes
    assert printed.count("00002.npy:missing") == 1
    assert printed.count("00003.png:cannotberead") == 1
    assert "2itemsleftout" in printed
    assert len(load_checkpoint(tmp_path / "run" / "last.ckpt").problems) == 2


def test_a_set_with_nothing_left_is_an_error_that_says_why(clip_set, tmp_path):
    (tmp_path / "set" / "train" / "clip_0" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no clip that can be used:\n.*clip_0/images: no images"):
        train_predictor(config_for(tmp_path / "set", tmp_path / "run"))


def test_a_run_that_diverges_stops_and_says_what_to_do(clip_set, tmp_path):
    optim = OptimConfig(learning_rate=1e30, warmup_epochs=0.0, epochs=1)
    with pytest.raises(RuntimeError, match=r"diverged.*--optim\.learning-rate"):
        train_predictor(config_for(clip_set, tmp_path / "run", optim=optim))
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_without_a_set_the_error_names_the_options():
    with pytest.raises(ValueError, match=r"--data\.pointodyssey FOLDER"):
        DataConfig()


def test_without_the_extra_the_error_names_it(clip_set, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=r"pip install 'das3r-ns\[train\]'"):
        train_predictor(config_for(clip_set, tmp_path / "run"))


@pytest.mark.slow
def two_processes(clip_set: Path, out: Path, pairs: int, *options: str) -> dict:
    """What `subprocess` needs to train a tiny network in two processes, two pairs a step."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *(str(Path(__file__).parents[2].joinpath("train_narrow.py")), "train-predictor", "--out", str(out)),
        *("--weights", "scratch", "--train", "all", "--device", "cpu", "--batch-size", "1", "--log-every", "1"),
        *("--data.clips", str(clip_set), "--data.sizes", "32", "48", "--data.pairs-per-epoch", str(pairs)),
        *("--data.val-pairs", "2", "--data.workers", "0", "--data.max-stride", "3"),
        *("--optim.epochs", "1", "--optim.warmup-epochs", "0.5", "--optim.learning-rate", "1e-3"),
        *("--network.enc-embed-dim", "32", "--network.enc-depth", "1", "--network.enc-num-heads", "2"),
        *("--network.dec-embed-dim", "32", "--network.dec-depth", "4", "--network.dec-num-heads", "2"),
        *("--network.image-size", "32", "48", *options),
    ]
    return {"args": command, "text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1", "DAS3R_TRACEBACK": "1"}}


def test_two_processes_killed_in_the_middle_go_on_from_their_last_checkpoint(clip_set, tmp_path):
    out, steps = tmp_path / "run", 12
    running = subprocess.Popen(
        **two_processes(clip_set, out, 2 * steps, "--checkpoint-every", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (out / "last.ckpt").exists():
        assert running.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.01)
    # Parent and workers, each of which leads a session of its own.
    parent = psutil.Process(running.pid)
    killed = [parent, *parent.children(recursive=True)]
    for process in killed:
        process.kill()
    running.wait()
    psutil.wait_procs(killed[1:], timeout=10)
    kept = load_checkpoint(out / "last.ckpt").step
    assert 2 <= kept < steps
    lines_before = len((out / "log.jsonl").read_text().splitlines())
    done = subprocess.run(
        **two_processes(clip_set, out, 2 * steps, "--checkpoint-every", "2", "--resume"),
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert load_checkpoint(out / "last.ckpt").step == steps
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()[lines_before:]]
    assert [line["step"] for line in lines if "train/loss" in line] == list(range(kept + 1, steps + 1))


def test_two_processes_train_three_steps_and_new_ones_resume_to_the_same_weights(clip_set, tmp_path):
    def run(out: str, *options: str) -> str:
        done = subprocess.run(**two_processes(clip_set, tmp_path / out, 6, *options), capture_output=True, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    assert "stopped after 2 of 3 steps" in run("run", "--stop-after-steps", "2")
    assert run("run", "--resume").count("trained 3 steps") == 1  # one of the two speaks
    # The same three steps, six pairs in the same order, taken by one process.
    alone = config_for(clip_set, tmp_path / "alone")
    train_predictor(alone)
    found, expected = (load_checkpoint(tmp_path / name / "last.ckpt") for name in ("run", "alone"))
    assert found.step == 3
    assert found.order == expected.order
    losses = [
        [json.loads(line)["train/loss"] for line in (tmp_path / name / "log.jsonl").open() if "train/loss" in line]
        for name in ("run", "alone")
    ]
    # Dropout differs, and a mean of two means is not quite the mean of all valid pixels.
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.05)
