"""Kept features: the same training as without, whatever was interrupted, and never the features of something else."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import MASKS_ALONE, SMALL, clip_set_of_module, narrow_heads, random_batch

from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.weights import load_network, save_weights
from das3r_ns.predictor.training.data.clips import ClipFolders
from das3r_ns.predictor.training.data.order import Order
from das3r_ns.predictor.training.features.feed import LoadedFeed
from das3r_ns.predictor.training.features.frozen import RecordLayout, frozen_loss
from das3r_ns.predictor.training.features.store import FeatureConfig, FeatureStore
from das3r_ns.predictor.training.loop.config import DataConfig, TrainPredictorConfig
from das3r_ns.predictor.training.loop.losses import LossConfig, pair_loss
from das3r_ns.predictor.training.loop.parts import select_parts
from das3r_ns.predictor.training.loop.schedule import OptimConfig
from das3r_ns.predictor.training.loop.step import TrainingStep
from das3r_ns.predictor.training.loop.train import Run, train_predictor

KEPT = 2  # epochs of 6 pairs, three steps each


_narrow_heads = pytest.fixture(autouse=True)(narrow_heads)
clip_set = pytest.fixture(scope="module")(clip_set_of_module)


def config_for(clip_set: Path, out: Path, **changes) -> TrainPredictorConfig:
    """Four epochs of three steps, the first two of which recur, in two sizes of views."""
    data = DataConfig(
        clips=clip_set, pairs_per_epoch=6, sizes=((32, 48), (48, 32)), val_pairs=1, workers=0, max_stride=3
    )
    config = TrainPredictorConfig(
        out,
        data,
        weights="scratch",
        network=SMALL,
        batch_size=2,
        device="cpu",
        log_every=1,
        checkpoint_every=1,
        validate_every=1000,
        features=FeatureConfig(epochs=KEPT),
        optim=OptimConfig(learning_rate=1e-3, warmup_epochs=0.5, epochs=4),
    )
    return replace(config, **changes)


def losses_of(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["train/loss"] for line in lines if "train/loss" in line]


def recorded_reads(monkeypatch) -> list[int]:
    """Pairs of the training split whose images are read from now on."""
    reads, read = [], ClipFolders.read

    def recorded(self, pair):
        if self.name.endswith("/train"):
            reads.append(pair)
        return read(self, pair)

    monkeypatch.setattr(ClipFolders, "read", recorded)
    return reads


def same_weights(one: Path, other: Path) -> bool:
    a, b = (load_network(run / "final")[0].state_dict() for run in (one, other))
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("loss", [LossConfig(), MASKS_ALONE], ids=["published", "masks"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kept_features_give_the_losses_of_computing_them_each_time(loss, precision, clip_set, tmp_path, monkeypatch):
    kept = config_for(clip_set, tmp_path / "kept", loss=loss, precision=precision)
    train_predictor(kept)

    def each_time(run: Run) -> LoadedFeed:
        run.store.close()
        run.store = None
        return plain(run)

    plain = Run._feed
    monkeypatch.setattr(Run, "_feed", each_time)
    train_predictor(replace(kept, out=tmp_path / "computed"))
    found, expected = losses_of(kept.out), losses_of(tmp_path / "computed")
    assert len(found) == 12
    assert len({round(value, 6) for value in found}) == 12  # the heads learn, and dropout goes on
    # In bfloat16 the kept confidences are rounded too.
    np.testing.assert_allclose(found, expected, rtol=1e-6 if precision == "float32" else 2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("features", [FeatureConfig(2), FeatureConfig(2, 0.1), FeatureConfig(2, 0.1, "gpu")], ids=str)
def test_on_a_gpu_kept_features_give_the_losses_of_the_cpu_from_wherever_they_are(features, clip_set, tmp_path):
    # Half-learned weights would differ from one card to another: the heads stay as they are.
    optim = OptimConfig(learning_rate=1e-12, min_learning_rate=1e-12, warmup_epochs=0.0, epochs=4)
    config = config_for(clip_set, tmp_path / "cpu", features=features, optim=optim, precision="float32")
    config = replace(config, features=replace(features, memory="host"))
    train_predictor(config)
    train_predictor(replace(config, out=tmp_path / "gpu", device="cuda", features=features, precision="bfloat16"))
    expected, found = losses_of(tmp_path / "cpu"), losses_of(tmp_path / "gpu")
    np.testing.assert_allclose(found, expected, rtol=0.03)  # TF32 and bfloat16, other dropout
    # Kept features are those that were computed: only dropout tells the epochs from one another.
    np.testing.assert_allclose(found[6:], found[:6], rtol=0.03)


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0], ids=["disk", "both", "memory"])
def test_a_run_with_kept_features_reads_each_image_once_and_resumes_to_the_same_weights(
    share, clip_set, tmp_path, monkeypatch
):
    record = RecordLayout.of(SMALL, (32, 48), True, True, torch.float32).bytes
    features = FeatureConfig(epochs=KEPT, memory_gib=share * KEPT * 6 * record / 2**30)
    whole = config_for(clip_set, tmp_path / "whole", features=features)
    reads = recorded_reads(monkeypatch)
    train_predictor(replace(whole, stop_after_steps=1))
    to_begin = len(reads) - 2  # a look at the data, to tell them from others
    assert to_begin < 20
    shutil.rmtree(whole.out)
    reads.clear()
    train_predictor(whole)
    assert len(reads) == to_begin + KEPT * 6
    files = len(list((whole.out / "features").glob("epoch_*/*")))
    assert files == 12 if share == 0 else files < 12 if share < 1 else files == 0

    halves = replace(whole, out=tmp_path / "halves")
    train_predictor(replace(halves, stop_after_steps=5))
    (halves.out / "features").mkdir(exist_ok=True)
    for damaged in list((halves.out / "features").glob("epoch_*/*"))[:1]:
        damaged.write_bytes(damaged.read_bytes()[:-1])  # what a full disk or a crash may leave
    on_disk = len(list((halves.out / "features").glob("epoch_*/*")))
    reads.clear()
    train_predictor(replace(halves, resume=True))
    if share == 0:
        assert len(reads) == to_begin + 2 + 2  # the last step of the second epoch, and the step of the damaged pair
        assert on_disk == 10
    assert losses_of(halves.out) == losses_of(whole.out)
    assert same_weights(halves.out, whole.out)


def test_features_are_taken_over_by_a_like_run_and_by_no_other(clip_set, tmp_path, monkeypatch):
    folder = tmp_path / "features"
    features = FeatureConfig(epochs=1, folder=folder)
    first = config_for(clip_set, tmp_path / "first", features=features)
    train_predictor(first)
    reads = recorded_reads(monkeypatch)
    slower = replace(first.optim, learning_rate=5e-4)
    train_predictor(replace(first, out=tmp_path / "second", optim=slower))
    assert len(reads) < 20  # a look at the data, no more
    assert not np.allclose(losses_of(first.out), losses_of(tmp_path / "second"))
    data = replace(first.data, augment=replace(first.data.augment, hue=0.0))
    with pytest.raises(ValueError, match=r"holds features of another run \(crops differ.*--features\.folder"):
        train_predictor(replace(first, out=tmp_path / "crops", data=data))
    with pytest.raises(ValueError, match=r"\(arithmetic differ"):
        train_predictor(replace(first, out=tmp_path / "bfloat16", precision="bfloat16"))
    network = load_network(first.out / "start")[0]
    with torch.no_grad():
        network.enc_blocks[0].mlp.fc1.bias[3] += 1e-3
    save_weights(network, tmp_path / "weights")
    with pytest.raises(ValueError, match=r"\(weights differ"):
        train_predictor(replace(first, out=tmp_path / "weights_run", weights=str(tmp_path / "weights")))
    changed = tmp_path / "changed"
    shutil.copytree(clip_set, changed)
    for mask in changed.glob("train/*/dynamic_masks/*.png"):
        mask.write_bytes(next(clip_set.glob("val/*/dynamic_masks/*.png")).read_bytes())
    with pytest.raises(ValueError, match=r"\(data differ"):
        train_predictor(replace(first, out=tmp_path / "data", data=replace(first.data, clips=changed)))
    (folder / "features.json").unlink()
    with pytest.raises(ValueError, match="is gone"):
        train_predictor(replace(first, out=tmp_path / "anonymous"))


def test_a_disk_that_is_too_small_is_told_before_training(clip_set, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    config = config_for(clip_set, tmp_path / "run")
    reads = recorded_reads(monkeypatch)
    with pytest.raises(OSError, match=r"need 0\.\d GB more .*--features\.memory-gib"):
        train_predictor(config)
    assert not reads
    assert not (config.out / "features").exists()
    train_predictor(replace(config, out=tmp_path / "fits", features=replace(config.features, memory_gib=0.1)))


def test_a_disk_that_fills_up_stops_the_run_which_resumes_to_the_same_losses(clip_set, tmp_path, monkeypatch):
    config = config_for(clip_set, tmp_path / "run")
    write = Path.write_bytes

    def full(path: Path, data) -> int:
        if path.suffix == ".part" and path.stem == "0000003":
            write(path, bytes(data)[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match=r"cannot be written .*No space left.*--resume goes on"):
            train_predictor(config)
    assert not list((config.out / "features").rglob("*.part"))
    train_predictor(replace(config, resume=True))
    train_predictor(replace(config, out=tmp_path / "whole"))
    assert losses_of(config.out)[-9:] == losses_of(tmp_path / "whole")[-9:]


def test_options_that_contradict_each_other_are_refused(clip_set, tmp_path):
    with pytest.raises(ValueError, match="--train decoder changes it"):
        config_for(clip_set, tmp_path, train="decoder")
    with pytest.raises(ValueError, match="no pair would recur"):
        config_for(clip_set, tmp_path, features=FeatureConfig(epochs=4))
    with pytest.raises(ValueError, match="negative"):
        FeatureConfig(memory_gib=-1.0)
    config = config_for(clip_set, tmp_path / "run", stop_after_steps=2)
    train_predictor(config)
    with pytest.raises(ValueError, match="recurring: 2 then, 3 now"):
        train_predictor(replace(config, resume=True, features=FeatureConfig(epochs=3)))


def test_room_is_asked_for_every_pair_of_the_recurring_epochs_beyond_memory_and_what_is_there(tmp_path):
    layouts = {
        size: RecordLayout.of(SMALL, size, False, False, torch.float32) for size in ((32, 48), (48, 32), (32, 32))
    }
    order = Order((20,), 7, 2, tuple(layouts), seed=1, recurring=2)  # two epochs of three steps of two pairs
    expected = sum(2 * layouts[order.size(epoch, step)].bytes for epoch in range(2) for step in range(3))
    assert len({layout.bytes for layout in layouts.values()}) == 2

    def store(memory_gib: float = 0.0, processes: int = 1) -> FeatureStore:
        config = FeatureConfig(epochs=2, memory_gib=memory_gib)
        return FeatureStore(config, tmp_path, order, layouts, torch.device("cpu"), processes)

    found = store()
    assert found.total_bytes == found.disk_bytes == expected
    found.close()
    found = store(10_000 / 2**30, processes=2)
    assert (found.total_bytes, found.disk_bytes) == (expected, expected - 20_000)
    found.close()
    found = store(1.0)
    assert (found.total_bytes, found.disk_bytes) == (expected, 0)
    found.close()


@pytest.mark.parametrize("symmetrise", [True, False])
@pytest.mark.parametrize("loss", [LossConfig(), MASKS_ALONE], ids=["published", "masks"])
def test_records_hold_all_that_the_loss_needs(loss, symmetrise):
    network = PairwiseNetwork(SMALL)
    select_parts(network, "heads", needs_points=True)
    step = TrainingStep(network, "heads", loss, symmetrise).eval()
    batch = random_batch(3)
    batch.view1.dynamic[0, :5] = 255
    batch.view2.depth[1, 3:9] = 0
    features = step.freeze(batch)
    layout = RecordLayout.of(SMALL, (32, 48), symmetrise, loss.needs_points, torch.float32)
    records = layout.pack(features)
    assert records.shape == (3, layout.bytes)
    chosen = layout.unpack(records[[2, 0, 1]].clone()[[1, 2, 0]])  # pair by pair, in whatever order they lie
    logits = step._logits((chosen.view1.tokens, chosen.view2.tokens), chosen.grid)
    found, parts = frozen_loss(logits, chosen, loss)
    predictions = step.predict(batch, loss.needs_points)
    truths = (batch.symmetrised() if symmetrise else batch).truths()
    expected, expected_parts = pair_loss(predictions, truths, loss)
    torch.testing.assert_close(found, expected)
    for view, expected_view in zip(parts, expected_parts):
        for value, expected_value in zip(view, expected_view):
            torch.testing.assert_close(value, expected_value)


@pytest.mark.slow
def test_two_processes_keep_features_and_one_goes_on_with_them(clip_set, tmp_path):
    def run(out: str, processes: int, *options: str) -> str:
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
            *(
                str(Path(__file__).parents[2].joinpath("train_narrow.py")),
                "train-predictor",
                "--out",
                str(tmp_path / out),
            ),
            *("--weights", "scratch", "--device", "cpu", "--batch-size", str(2 // processes), "--log-every", "1"),
            *("--data.clips", str(clip_set), "--data.sizes", "32", "48", "--data.pairs-per-epoch", "6"),
            *("--data.val-pairs", "2", "--data.workers", "0", "--data.max-stride", "3", "--features.epochs", "1"),
            *("--optim.epochs", "3", "--optim.warmup-epochs", "0.5", "--optim.learning-rate", "1e-3"),
            *("--network.enc-embed-dim", "32", "--network.enc-depth", "1", "--network.enc-num-heads", "2"),
            *("--network.dec-embed-dim", "32", "--network.dec-depth", "4", "--network.dec-num-heads", "2"),
            *("--network.image-size", "32", "48", *options),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DAS3R_TRACEBACK": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    told = run("two", 2, "--stop-after-steps", "4")
    assert told.count("features of 1 epochs") == 1
    files = list((tmp_path / "two" / "features" / "epoch_00000").iterdir())
    assert sorted(file.name for file in files) == [f"{position:07d}" for position in range(6)]
    written = {file: file.stat().st_mtime_ns for file in files}
    run("two", 1, "--resume")
    assert {file: file.stat().st_mtime_ns for file in files} == written
    run("one", 1)
    # Dropout differs between one process and two, and a mean of two means is not quite the mean of all valid pixels.
    np.testing.assert_allclose(losses_of(tmp_path / "two"), losses_of(tmp_path / "one"), rtol=0.05)
