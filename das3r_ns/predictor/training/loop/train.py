"""`das3r train-predictor`: the training loop, on one device or, under torchrun, on many.

One process:            das3r train-predictor --out RUN --data.pointodyssey FOLDER
Several GPUs of a host: torchrun --nproc-per-node 2 --no-python das3r train-predictor --out RUN ...
Several hosts:          torchrun --nnodes 2 --nproc-per-node 8 --rdzv-endpoint HOST:PORT --no-python das3r ...

Lightning Fabric places the model, the arithmetic and the exchange of gradients; the loop itself is plain.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
import tyro
from rich import get_console
from rich.pretty import pprint
from torch import Tensor

from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.weights import load_network, save_weights
from das3r_ns.predictor.training.data.loading import PairBatch, PairDataset
from das3r_ns.predictor.training.data.order import Order
from das3r_ns.predictor.training.data.sets import training_sets, validation_sets
from das3r_ns.predictor.training.data.sources import ProblemLog
from das3r_ns.predictor.training.features.feed import FeatureFeed, LoadedFeed, make_feed
from das3r_ns.predictor.training.features.frozen import FeatureBatch, FrozenFeatures
from das3r_ns.predictor.training.features.identity import open_store
from das3r_ns.predictor.training.loop.averages import WeightAverage
from das3r_ns.predictor.training.loop.checkpoint import (
    Checkpoint,
    check_resumable,
    load_checkpoint,
    restore,
    save_checkpoint,
)
from das3r_ns.predictor.training.loop.config import SCRATCH, TrainPredictorConfig
from das3r_ns.predictor.training.loop.engine import gather_lists, make_fabric
from das3r_ns.predictor.training.loop.logs import LOSS_NAMES, Meter, RunLog
from das3r_ns.predictor.training.loop.parts import parameter_groups, select_parts
from das3r_ns.predictor.training.loop.schedule import learning_rate
from das3r_ns.predictor.training.loop.step import TrainingStep
from das3r_ns.predictor.training.loop.validation import validate, validation_plan

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LAST, START, BEST, FINAL = "last.ckpt", "start", "best", "final"
"""What a run leaves in its folder: the checkpoint to resume from, and weights in hub layout."""


def train_predictor(config: Annotated[TrainPredictorConfig, tyro.conf.arg(name="")]) -> Path:
    """Train the dynamic predictor; the defaults are the published recipe.

    Several GPUs: the same command under `torchrun --nproc-per-node N --no-python`.

    Returns:
        The folder of the trained weights (hub layout); OUT itself if the run stopped before its end.
    """
    fabric = make_fabric(config)
    fabric.launch()
    return Run(config, fabric).train()


class Run:
    """A training run: what is built from the configuration, and the loop over it."""

    def __init__(self, config: TrainPredictorConfig, fabric: Fabric) -> None:
        self.config, self.fabric, self.main = config, fabric, fabric.is_global_zero
        checkpoint = self._previous()
        if self.main and checkpoint is None:
            pprint(config, expand_all=True, console=get_console())
        self.problems = ProblemLog(dict(checkpoint.problems) if checkpoint else {}, announce=self.main)
        self._open_sets()
        self._build_model(checkpoint)

    def _previous(self) -> Checkpoint | None:
        """The checkpoint to go on from; None begins a new run.

        Raises:
            FileExistsError: a run is in OUT and `--resume` was not given.
        """
        path = self.config.out / LAST
        if self.config.resume:
            return load_checkpoint(path) if path.is_file() else None
        if path.exists():
            raise FileExistsError(
                f"{self.config.out} holds a run already. Add --resume to go on with it, or choose another --out."
            )
        return None

    def _open_sets(self) -> None:
        config, data = self.config, self.config.data
        self.sources, self.val_sources = training_sets(data, config.seed), validation_sets(data)
        for source in (*self.sources, *self.val_sources):
            self.problems.add(source.problems)
        self.order = Order(
            pool_sizes=tuple(len(source.pairs) for source in self.sources),
            pairs_per_epoch=data.pairs_per_epoch,
            global_batch=config.batch_size * self.fabric.world_size * config.accumulate,
            sizes=data.sizes,
            seed=config.seed,
            recurring=config.features.epochs,
        )
        self.total_steps = self.order.steps_per_epoch * config.optim.epochs
        self.end = min(self.total_steps, config.stop_after_steps or self.total_steps)
        self.val_plans = []
        for source in self.val_sources:
            plan, problems = validation_plan(source, data.val_pairs, max(map(max, data.sizes)), config.batch_size)
            self.val_plans.append(plan)
            self.problems.add(problems)

    def _build_model(self, checkpoint: Checkpoint | None) -> None:
        config, fabric = self.config, self.fabric
        network = self._starting_network(write=checkpoint is None)
        self.learning = select_parts(network, config.train, config.loss.needs_points)
        self.store = open_store(config, fabric, network, self.sources, self.order) if config.features.epochs else None
        if checkpoint is not None:
            check_resumable(checkpoint, self.order.as_record(), self.learning, config.out / LAST)
            restore(checkpoint, self.learning)
        self.step = TrainingStep(network, config.train, config.loss, config.symmetrise, config.compile)
        self.step.to(fabric.device)
        if fabric.device.type == "cuda":
            self.step.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(
            parameter_groups(self.learning, config.optim.weight_decay),
            lr=config.optim.learning_rate,
            betas=config.optim.betas,
            fused=fabric.device.type == "cuda",
        )
        self.average = WeightAverage(self.learning, config.optim.ema_decay) if config.optim.ema_decay else None
        self.done, self.best_j = 0, -1.0
        if checkpoint is not None:
            optimizer.load_state_dict(checkpoint.optimizer)
            self.done, self.best_j = checkpoint.step, checkpoint.best_j
            if self.average is not None and checkpoint.average is not None:
                self.average.restore(checkpoint.average)
        self.model, self.optimizer = fabric.setup(self.step, optimizer)

    def _starting_network(self, write: bool) -> PairwiseNetwork:
        """The network with the weights that the run began with, the same in all processes.

        Args:
            write: begin: put the weights into OUT/start, which a resume reads.
        """
        config, start = self.config, self.config.out / START
        if write and self.main:
            torch.manual_seed(config.seed)
            network = PairwiseNetwork(config.network) if config.weights == SCRATCH else load_network(config.weights)[0]
            save_weights(network, start)
            record = json.dumps(dataclasses.asdict(config), indent=2, default=str)
            (config.out / "config.json").write_text(record + "\n", encoding="utf-8")
        self.fabric.barrier()
        return load_network(start, published=config.weights != SCRATCH)[0].train()

    def _feed(self) -> LoadedFeed | FeatureFeed:
        """The batches that this process is to train on."""
        config, fabric = self.config, self.fabric

        def freeze(batch: PairBatch) -> FrozenFeatures:
            with fabric.autocast():
                return self.step.freeze(batch)

        mine = config.batch_size, fabric.global_rank, fabric.world_size
        batches = partial(self.order.batches, range(self.done, self.end), *mine)
        dataset = PairDataset(self.sources, config.data.augment, config.seed)
        return make_feed(dataset, batches, config.data.workers, fabric.device, self.store, freeze)

    def train(self) -> Path:
        """Train to the end or to `stop_after_steps`. Returns the folder of the weights, or OUT if not at the end."""
        config, meter = self.config, Meter(self.fabric.device)
        validate_every = config.validate_every or self.order.steps_per_epoch
        with self._feed() as feed, RunLog(config.out, self.total_steps, self.main) as log:
            while self.done < self.end:
                self._one_step(feed, meter)
                self.done += 1
                log.advance(self.done)
                at_end = self.done == self.end
                if self.done % config.log_every == 0 or at_end:
                    self._log(log, meter)
                if self.val_sources and (self.done % validate_every == 0 or at_end):
                    self._validate(log)
                    meter.reset()
                if self.done % config.checkpoint_every == 0 or at_end:
                    self._save()
                    meter.reset()
        return self._finish()

    def _one_step(self, feed: LoadedFeed | FeatureFeed, meter: Meter) -> None:
        config, fabric = self.config, self.fabric
        rate = learning_rate(self.done / self.order.steps_per_epoch, config.optim)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout follows from the step, so that a resumed run repeats what the uninterrupted one would have done.
        seed = np.random.SeedSequence((config.seed, self.done, fabric.global_rank)).generate_state(1)
        torch.manual_seed(int(seed[0]))
        for part in range(config.accumulate):
            before = time.perf_counter()
            batch, problems = feed.next()
            waited_s = time.perf_counter() - before
            self.problems.add(problems)
            with fabric.no_backward_sync(self.model, enabled=part + 1 < config.accumulate):
                result = self.model(batch)
                fabric.backward(result.loss / config.accumulate)
            pairs = len(batch.records) if isinstance(batch, FeatureBatch) else len(batch.view1.rgb)
            meter.add(result.loss, result.views, pairs, waited_s)
        if config.optim.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(list(self.learning.values()), config.optim.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.done)

    def _log(self, log: RunLog, meter: Meter) -> None:
        means = self._sum(meter.means()) / self.fabric.world_size
        numbers = dict(zip(("loss", *LOSS_NAMES), means.tolist()))
        if not math.isfinite(numbers["loss"]):
            raise RuntimeError(
                f"the loss is {numbers['loss']} at step {self.done}: the run diverged. Its last checkpoint is "
                f"{self.config.out / LAST}; go on from it with a lower --optim.learning-rate, with "
                "--optim.max-grad-norm 1 or with --precision float32."
            )
        speed = meter.speed()  # after the line above, which waited for the device
        self.problems.exchange(partial(gather_lists, self.fabric))
        numbers["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        numbers["pairs_per_s"] = speed["pairs_per_s"] * self.fabric.world_size
        numbers["data_wait"] = speed["data_wait"]
        numbers["left_out"] = float(len(self.problems))
        if self.fabric.device.type == "cuda":
            numbers["peak_memory_gib"] = torch.cuda.max_memory_allocated(self.fabric.device) / 2**30
        log.training(self.done, numbers)
        meter.reset()

    def _validate(self, log: RunLog) -> None:
        """Score every set; keep the weights if their mean J is the best so far."""
        config, fabric, scores = self.config, self.fabric, []
        with self._averaged(), fabric.autocast():
            for source, plan in zip(self.val_sources, self.val_plans):
                of_set, images, problems = validate(
                    self.step,
                    source,
                    plan[fabric.global_rank :: fabric.world_size],
                    workers=config.data.workers,
                    device=fabric.device,
                    add_up=self._sum,
                )
                self.problems.add(problems)
                log.validation(self.done, of_set, images)
                scores.append(of_set.j)
        if np.mean(scores) > self.best_j:
            self.best_j = float(np.mean(scores))
            self._write_weights(BEST)

    def _save(self) -> None:
        if self.main:
            checkpoint = Checkpoint(
                step=self.done,
                order=self.order.as_record(),
                learned={name: parameter.detach() for name, parameter in self.learning.items()},
                average=self.average.average if self.average is not None else None,
                optimizer=self.optimizer.state_dict(),
                problems=self.problems.seen,
                best_j=self.best_j,
            )
            save_checkpoint(checkpoint, self.config.out / LAST)
        self.fabric.barrier()

    def _finish(self) -> Path:
        out, left_out = self.config.out, len(self.problems)
        at_end = self.done == self.total_steps
        if at_end:
            self._write_weights(FINAL)
        self.fabric.barrier()
        if self.main:
            stopped = f"stopped after {self.done} of {self.total_steps} steps; --resume goes on"
            what = f"trained {self.done} steps; weights in {out / FINAL}" if at_end else stopped
            best = f", best mean J {self.best_j:.3f} in {out / BEST}" if self.best_j >= 0 else ""
            get_console().print(f"{what}{best}; {left_out} items left out", highlight=False)
        return out / FINAL if at_end else out

    def _write_weights(self, name: str) -> None:
        if self.main:
            with self._averaged():
                save_weights(self.step.network, self.config.out / name)

    def _averaged(self) -> nullcontext[None] | WeightAverage:
        """Within it, the network computes with the averaged weights, if there are any."""
        return nullcontext() if self.average is None else self.average

    def _sum(self, values: Tensor) -> Tensor:
        return self.fabric.all_reduce(values, reduce_op="sum")  # type: ignore[return-value]
