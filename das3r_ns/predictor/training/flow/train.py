"""`das3r train-flow`: the training loop of the flow network, on one device or, under torchrun, on many.

One process:            das3r train-flow --out RUN
Several GPUs of a host: torchrun --nproc-per-node 2 --no-python das3r train-flow --out RUN

Worlds are drawn on the device that trains; there is nothing to load and no worker process.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import cv2
import numpy as np
import torch
import tyro
from rich import get_console
from rich.pretty import pprint
from torch import Tensor

from das3r_ns.predictor.flow.network import FlowNetwork, load_flow_network
from das3r_ns.predictor.training.flow.config import FlowOptimConfig, TrainFlowConfig
from das3r_ns.predictor.training.flow.gradients import StepGradients
from das3r_ns.predictor.training.flow.losses import FlowTrainingStep
from das3r_ns.predictor.training.flow.textures import make_textures
from das3r_ns.predictor.training.flow.validation import held_out_pairs, validate
from das3r_ns.predictor.training.flow.worlds import draw_pairs
from das3r_ns.predictor.training.loop.averages import WeightAverage
from das3r_ns.predictor.training.loop.engine import make_fabric
from das3r_ns.predictor.training.loop.tensorboard import summary_writer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT, WEIGHTS, LOG = "last.ckpt", "flow.safetensors", "log.jsonl"
"""What a run leaves in its folder, beside `images` and `tensorboard`."""
FORMAT = 1
MOSAIC_ROWS = 10
FROM_MATCHING_SHARE = 0.5
"""Pairs whose updates start with what the matching finds; the others start with no motion, and find their own way."""


def train_flow(config: Annotated[TrainFlowConfig, tyro.conf.arg(name="")]) -> Path:
    """Train the optical-flow network on worlds that are drawn while it trains.

    Several GPUs: the same command under `torchrun --nproc-per-node N --no-python`.

    Returns:
        The file of the averaged weights, in half precision, as they are shipped.
    """
    fabric = make_fabric(config)
    fabric.launch()
    return FlowRun(config, fabric).train()


def learning_rate(progress: float, config: FlowOptimConfig) -> float:
    """Learning rate when this share of the training is done: a linear rise, then half a cosine to nearly zero."""
    if progress < config.warmup_share:
        return config.learning_rate * (0.02 + 0.98 * progress / config.warmup_share)
    fallen = min((progress - config.warmup_share) / (1 - config.warmup_share), 1.0)
    return config.learning_rate * (0.002 + 0.998 * 0.5 * (1 + math.cos(math.pi * fallen)))


class FlowRun:
    """A training run: what is built from the configuration, and the loop over it."""

    def __init__(self, config: TrainFlowConfig, fabric: Fabric) -> None:
        self.config, self.fabric, self.main = config, fabric, fabric.is_global_zero
        self.done, self.trained_s = 0, 0.0
        checkpoint = self._previous()
        if self.main:
            config.out.mkdir(parents=True, exist_ok=True)
            if checkpoint is None:
                pprint(config, expand_all=True, console=get_console())
                record = json.dumps(dataclasses.asdict(config), indent=2, default=str)
                (config.out / "config.json").write_text(record + "\n", encoding="utf-8")
            self.writer = summary_writer(config.out / "tensorboard")
        torch.manual_seed(config.seed)  # the same start weights in all processes
        self.network = FlowNetwork() if config.weights is None else load_flow_network(config.weights)
        self.network.train().requires_grad_()
        self.step = FlowTrainingStep(self.network, config.updates, config.refinements).to(fabric.device)
        if fabric.device.type == "cuda":
            self.step.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = dict(self.network.named_parameters())
        optimizer = torch.optim.AdamW(
            parameters.values(),
            lr=config.optim.learning_rate,
            weight_decay=config.optim.weight_decay,
            fused=fabric.device.type == "cuda",
        )
        self.average = WeightAverage(parameters, config.optim.ema_decay)
        if checkpoint is not None:
            self.network.load_state_dict(checkpoint["network"])
            self.average.restore(checkpoint["average"])
            optimizer.load_state_dict(checkpoint["optimizer"])
            self.done, self.trained_s = checkpoint["step"], checkpoint["trained_s"]
        if config.compile:
            self._compile()
        self.optimizer = optimizer
        generator = torch.Generator(fabric.device).manual_seed(self._seed(0))
        self.textures = make_textures(config.data.textures, config.data.texture_side, generator)
        # Validation's textures have a seed of their own, the same for all runs.
        generator = torch.Generator(fabric.device).manual_seed(2**20)
        self.val_textures = make_textures(
            max(config.data.textures // 8, 1), config.data.texture_side, generator, held_out=True
        )
        self.gradients = StepGradients(list(parameters.values()), self._loss, fabric.device, config.record)

    def _previous(self) -> dict[str, Any] | None:
        path = self.config.out / CHECKPOINT
        if not self.config.resume:
            if path.exists():
                raise FileExistsError(
                    f"{self.config.out} holds a run already. Add --resume to go on with it, or choose another --out."
                )
            return None
        if not path.is_file():
            return None
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
            if stored["format"] != FORMAT:
                raise ValueError(f"it has format {stored['format']}, this release reads {FORMAT}")
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be resumed from ({error}). Delete it, or give another --out.") from error
        return stored

    def _compile(self) -> None:
        import torch._dynamo

        torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
        network = self.network
        for part in (network.encoder, network.update, network.upsample_coarse, network.refine, network.refine.upsample):
            part.compile(dynamic=False)
        network.correlate = torch.compile(network.correlate, dynamic=False)  # type: ignore[method-assign]
        network.look_up = torch.compile(network.look_up, dynamic=False)  # type: ignore[method-assign]
        self.step.robust = torch.compile(self.step.robust, dynamic=False)  # type: ignore[method-assign]

    def _seed(self, step: int) -> int:
        """Randomness of a step in this process."""
        seed = np.random.SeedSequence((self.config.seed, step, self.fabric.global_rank)).generate_state(1)[0]
        return int(seed)

    def train(self) -> Path:
        """Train to the end, or to where the configuration says to stop. Returns the file of the weights."""
        config = self.config
        before, last_validation = self.trained_s, time.perf_counter()
        start = last_validation
        self.progress, at_end = self._clock(before), False
        losses: list[Tensor] = []
        logged = time.perf_counter()
        while not at_end:
            losses.append(self._one_step())
            self.done += 1
            self.progress = self.progress if config.optim.minutes else self.done / config.optim.steps
            steps_over = self.done >= min(config.optim.steps, config.stop_after_steps or config.optim.steps)
            by_steps = steps_over if config.optim.minutes is None else self.done == config.stop_after_steps
            if self.done % config.log_every and not by_steps:
                continue
            means = self.fabric.all_reduce(torch.stack(losses).mean(0), reduce_op="mean")
            loss, error = means.tolist()  # waits for the device
            self._check(loss)
            now = time.perf_counter()
            self.trained_s = self._of_main(before + now - start)
            self.progress = self._clock(self.trained_s) if config.optim.minutes else self.progress
            at_end = by_steps or self._time_is_up()
            self._log(
                loss=loss,
                error_px=error,
                learning_rate=self.optimizer.param_groups[0]["lr"],
                pairs_per_s=len(losses) * config.batch_size * self.fabric.world_size / (now - logged),
            )
            if at_end or self._of_main(now - last_validation) > config.validate_every_s:
                self._validate_and_save(at_end)
                last_validation = time.perf_counter()
            losses, logged = [], time.perf_counter()
        if self.main:
            self.writer.close()
            get_console().print(
                f"trained {self.done} steps in {self.trained_s / 60:.1f} minutes; weights in {config.out / WEIGHTS}",
                highlight=False,
                soft_wrap=True,
            )
        return config.out / WEIGHTS

    def _clock(self, trained_s: float) -> float:
        """Share of the training that is done by the clock, or by the steps where they are what counts."""
        optim = self.config.optim
        return self.done / optim.steps if optim.minutes is None else min(trained_s / (60 * optim.minutes), 1.0)

    def _time_is_up(self) -> bool:
        limits = [self.config.optim.minutes, self.config.stop_after_minutes]
        return any(limit is not None and self.trained_s >= 60 * limit for limit in limits)

    def _of_main(self, value: float) -> float:
        """The value of the first process, so that all processes decide alike."""
        return float(self.fabric.broadcast(value))

    def _one_step(self) -> Tensor:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.progress, config.optim)
        figures = self.gradients(self._seed(1 + self.done))
        self._average_over_processes(self.gradients.buffer)
        norm = self.gradients.buffer.norm()
        self.gradients.buffer.mul_((config.optim.max_grad_norm / (norm + 1e-6)).clamp_max(1))
        self.optimizer.step()
        self.average.update(self.done)
        return figures

    def _average_over_processes(self, values: Tensor) -> None:
        if self.fabric.world_size > 1:
            values.copy_(cast(Tensor, self.fabric.all_reduce(values, reduce_op="mean")))

    def _loss(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Loss of a batch that is drawn for it; loss and end-point error to log."""
        config = self.config
        pairs = draw_pairs(config.batch_size, config.data.size, self.textures, generator, fused=config.compile)
        chance = torch.rand(config.batch_size, generator=generator, device=generator.device)
        with self.fabric.autocast():
            loss, error = self.step(
                pairs.first, pairs.second, pairs.flow, pairs.visible, pairs.moving, chance < FROM_MATCHING_SHARE
            )
        return loss, torch.stack((loss.detach(), error))

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss} at step {self.done}: the run diverged. Go on from {self.config.out / CHECKPOINT} "
                "(--resume) with a lower --optim.learning-rate."
            )

    def _validate_and_save(self, at_end: bool) -> None:
        for values in self.network.buffers():  # each process saw other images: their statistics are averaged
            if values.is_floating_point():
                self._average_over_processes(values)
        if self.main:
            self.network.eval()
            # Compiled parts would be compiled again for the few batches of another size.
            with self.average, torch.compiler.set_stance("force_eager"):
                pairs = held_out_pairs(self.config.data.val_pairs, self.config.data.size, self.val_textures)
                scores, mosaic = validate(self._estimate, pairs, MOSAIC_ROWS)
                save_flow_weights(self.network, self.config.out / WEIGHTS)
            self.network.train()
            table = scores.table()
            self._log(**{f"{name}/{what}": v for name, row in table.items() for what, v in zip(("epe", "bad"), row)})
            text = ", ".join(f"{name} {epe:.2f} px ({bad:.1f} %)" for name, (epe, bad) in table.items())
            get_console().print(f"step {self.done}, {self.trained_s:.0f} s: {text}", highlight=False, soft_wrap=True)
            if mosaic is not None:
                folder = self.config.out / "images"
                folder.mkdir(exist_ok=True)
                cv2.imwrite(str(folder / f"{self.done:06d}.jpg"), mosaic[..., ::-1])
                title = "held out: first, second, truth, predicted, error"
                self.writer.add_image(title, mosaic, self.done, dataformats="HWC")
            self._save()
        self.fabric.barrier()

    def _estimate(self, first: Tensor, second: Tensor) -> Tensor:
        with self.fabric.autocast():
            return self.network(first, second, self.config.updates, self.config.refinements).final[-1]

    def _save(self) -> None:
        """Written beside its place and moved there: an interrupted save leaves the old one."""
        path = self.config.out / CHECKPOINT
        partial = path.with_suffix(".part")
        torch.save(
            {
                "format": FORMAT,
                "step": self.done,
                "trained_s": self.trained_s,
                "network": self.network.state_dict(),
                "average": self.average.average,
                "optimizer": self.optimizer.state_dict(),
            },
            partial,
        )
        os.replace(partial, path)

    def _log(self, **numbers: float) -> None:
        if not self.main:
            return
        with (self.config.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": self.done, "trained_s": round(self.trained_s, 1), **numbers}) + "\n")
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, self.done)


def save_flow_weights(network: FlowNetwork, path: Path) -> None:
    """Weights in half precision, as they are shipped."""
    from safetensors.torch import save_file

    state = {
        name: (values.half() if values.is_floating_point() else values).contiguous().cpu()
        for name, values in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    partial = path.with_suffix(".part")
    save_file(state, str(partial))
    os.replace(partial, path)
