"""Weights of the pairwise network: checked key by key, loaded, written. `weights_source` finds them.

Nothing is ever unpickled freely: the hub layout is safetensors, and a `.pth` is read with PyTorch's restricted reader,
which builds tensors, plain containers and one harmless class. Every key is accounted for: what may be absent is said
in the report, anything else that is missing or unknown is an error.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from das3r_ns.predictor.network.config import PairwiseNetworkConfig
from das3r_ns.predictor.network.heads import mask_head
from das3r_ns.predictor.network.model import PairwiseNetwork
from das3r_ns.predictor.network.settings import DEFAULT_WEIGHTS
from das3r_ns.predictor.network.weights_source import HUB_FILES, WeightsError, locate_weights
from das3r_ns.runtime.progress import CONSOLE

LICENCE_NOTICE = (
    "The DAS3R, MonST3R and DUSt3R weights are licensed CC BY-NC-SA 4.0: non-commercial use only. "
    "What you make with them is bound by that, the code of das3r_ns is not."
)
HEADS = ("downstream_head1", "downstream_head2", "downstream_head_dynamic_mask1", "downstream_head_dynamic_mask2")
ALIASES = {
    f"{head}.dpt.scratch.layer_rn.{level}.weight": f"{head}.dpt.scratch.layer{level + 1}_rn.weight"
    for head in HEADS
    for level in range(4)
}
"""Second names that the checkpoints list, and the name each stands for."""
MASK_HEADS = HEADS[2:]
FOREIGN_KEYS = ("prediction_head.",)
"""Keys of other CroCo models, which play no part here."""

_notice_given = False


@dataclass(frozen=True)
class WeightsReport:
    """What had to be made up because the file did not hold it."""

    source: str
    """Where the weights came from, for provenance."""
    mask_heads_missing: bool
    """The file is DUSt3R's or MonST3R's: the dynamic-mask heads are random and wait for training."""
    second_decoder_copied: bool
    """The file holds one decoder, which was used for both images."""


def load_network(
    source: str | Path = DEFAULT_WEIGHTS, device: torch.device | str = "cpu", published: bool = True
) -> tuple[PairwiseNetwork, WeightsReport]:
    """Build the network that the weights describe, in evaluation mode and float32.

    Args:
        source: a hub repository, a folder with `config.json` and `model.safetensors`, or a `.pth` checkpoint.
        published: the weights are the published ones or come from them: their licence is told, once. False for weights
            that are known to have begun at random.

    Raises:
        WeightsError: nothing is there, the file is damaged, or its keys are not this network's.
    """
    path = locate_weights(source)
    if path.is_dir():
        config = _read_config(path / "config.json")
        weights_path, state = path / "model.safetensors", _read_safetensors(path / "model.safetensors")
    else:
        weights_path, (config, state) = path, _read_checkpoint(path)
    with torch.device("meta"):
        network = PairwiseNetwork(config)
    mask_heads_missing, second_decoder_copied = _complete(state, network, weights_path)
    if published:
        _give_notice()
    network.load_state_dict(state, strict=False, assign=True)
    if mask_heads_missing:
        for name in MASK_HEADS:
            setattr(network, name, mask_head(config.enc_embed_dim, config.dec_embed_dim))
    network.requires_grad_(True)  # assigned tensors come without
    return network.to(device).eval(), WeightsReport(str(source), mask_heads_missing, second_decoder_copied)


def save_weights(network: PairwiseNetwork, folder: str | Path) -> Path:
    """Write `config.json` and `model.safetensors` as the hub holds them: each tensor once, second names as metadata.

    Both files are written beside their place and moved there, so an interrupted save leaves the old ones.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {key: weight.detach().cpu().contiguous() for key, weight in network.state_dict().items()}
    kept = {key: weight for key, weight in state.items() if key not in ALIASES}
    partial = {name: folder / f".{name}.part" for name in HUB_FILES}
    partial["config.json"].write_text(json.dumps(network.config.to_hub(), indent=2) + "\n", encoding="utf-8")
    save_file(kept, partial["model.safetensors"], metadata={"format": "pt", **ALIASES})
    for name, path in partial.items():
        os.replace(path, folder / name)
    return folder


def _damaged(path: Path, error: Exception) -> WeightsError:
    real = path.resolve()  # the hub's cache links to a blob: deleting the link alone would bring the blob back
    files = f"{path}" if real == path.absolute() else f"{path} and {real}"
    size = real.stat().st_size if real.is_file() else 0
    return WeightsError(
        f"{path} ({size} bytes) is damaged or cut short ({error}). Nothing was loaded from it. "
        f"Delete {files} and fetch the weights again."
    )


def _read_config(path: Path) -> PairwiseNetworkConfig:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(stored, dict):
        raise WeightsError(f"{path} holds a {type(stored).__name__}, not the settings of a network.")
    try:
        return PairwiseNetworkConfig.from_hub(stored)
    except (ValueError, TypeError, OverflowError) as error:
        raise WeightsError(f"{path}: {error}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_checkpoint(path: Path) -> tuple[PairwiseNetworkConfig, dict[str, Tensor]]:
    """Configuration (from `args.model`, a constructor call as text) and state (`model`) of a training checkpoint."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapping the file leaves the optimiser's state, which nobody asks for, on the disk.
            stored = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        if "Unsupported" in str(error) and zipfile.is_zipfile(path):
            first = next(line for line in str(error).splitlines() if "Unsupported" in line).strip()
            raise WeightsError(
                f"{path} holds objects that only its own code could rebuild, and reading them would run that code. "
                f"Nothing was loaded. Save its 'model' and 'args' alone where you trust it. ({first})"
            ) from error
        raise _damaged(path, error) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("model"), dict):
        raise WeightsError(f"{path} is not a training checkpoint: expected a dictionary with 'model' and 'args'.")
    state = {key: weight for key, weight in stored["model"].items() if isinstance(weight, Tensor)}
    call = getattr(stored.get("args"), "model", None)
    try:
        return PairwiseNetworkConfig.from_hub(_constructor_arguments(call) if call else {}), state
    except (ValueError, TypeError, SyntaxError) as error:
        raise WeightsError(f"{path}: the stored network {call!r} cannot be rebuilt: {error}") from error


def _constructor_arguments(call: str) -> dict[str, Any]:
    """Keyword arguments of a constructor call given as text, read as literals (`inf` is known), never evaluated."""

    class Infinity(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            return ast.Constant(float("inf")) if node.id == "inf" else node

    tree = ast.parse(call.strip(), mode="eval").body
    if not isinstance(tree, ast.Call):
        raise ValueError("expected a call")
    arguments = {word.arg: Infinity().visit(word.value) for word in tree.keywords if word.arg}
    # Other arguments (`freeze`, loss settings) may be no literals; those the configuration asks for are.
    wanted = PairwiseNetworkConfig().to_hub().keys() & arguments.keys()
    return {name: ast.literal_eval(arguments[name]) for name in wanted}


def _complete(state: dict[str, Tensor], network: PairwiseNetwork, path: Path) -> tuple[bool, bool]:
    """Make `state` hold every canonical key of the network, as float32; raise on what does not fit.

    Returns:
        Whether the mask heads are missing, and whether the second decoder was copied from the first.
    """
    for alias, canonical in ALIASES.items():
        if alias in state:
            weight = state.pop(alias)
            state.setdefault(canonical, weight)
    for key in [key for key in state if key.startswith(FOREIGN_KEYS)]:
        del state[key]
    second_decoder_copied = not any(key.startswith("dec_blocks2.") for key in state)
    if second_decoder_copied:
        for key in [key for key in state if key.startswith("dec_blocks.")]:
            state[key.replace("dec_blocks.", "dec_blocks2.", 1)] = state[key].clone()
    expected = {key: weight for key, weight in network.state_dict().items() if key not in ALIASES}
    mask_heads_missing = not any(key.startswith(MASK_HEADS) for key in state)
    if mask_heads_missing:
        expected = {key: weight for key, weight in expected.items() if not key.startswith(MASK_HEADS)}
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unknown:
        raise WeightsError(
            f"{path} does not fit this network: {len(missing)} weights missing (first: {missing[:3]}), "
            f"{len(unknown)} unknown (first: {unknown[:3]}). Is it from another release?"
        )
    wrong = [key for key in expected if state[key].shape != expected[key].shape]
    if wrong:
        first = wrong[0]
        raise WeightsError(
            f"{path} does not fit its own configuration: {len(wrong)} weights have another shape, first {first} "
            f"{tuple(state[first].shape)}, expected {tuple(expected[first].shape)}."
        )
    for key in expected:
        state[key] = state[key].float()
    return mask_heads_missing, second_decoder_copied


def _give_notice() -> None:
    global _notice_given
    if not _notice_given:
        CONSOLE.print(LICENCE_NOTICE, style="yellow")
        _notice_given = True
