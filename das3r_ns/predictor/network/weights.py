"""Weights of the pairwise network: found (hub, folder, training checkpoint), checked key by key, loaded, written.

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
from das3r_ns.predictor.network_settings import DEFAULT_WEIGHTS
from das3r_ns.predictor.progress import CONSOLE

WEIGHTS_SIZE = "2.4 GB"
HUB_FILES = ("config.json", "model.safetensors")
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


class WeightsError(RuntimeError):
    """Weights that cannot be found or do not fit. The message says which, and what to do."""


@dataclass(frozen=True)
class WeightsReport:
    """What had to be made up because the file did not hold it."""

    source: str
    """Where the weights came from, for provenance."""
    mask_heads_missing: bool
    """The file is DUSt3R's or MonST3R's: the dynamic-mask heads are random and wait for training."""
    second_decoder_copied: bool
    """The file holds one decoder, which was used for both images."""


def weights_available(source: str | Path = DEFAULT_WEIGHTS) -> bool:
    """Whether the weights are on this machine already: a local file or folder, or in the hub's cache. No network."""
    path = Path(source).expanduser()
    if path.is_dir():
        return all((path / name).is_file() for name in HUB_FILES)
    if path.exists():
        return True
    return _looks_like_repository(source) and _cached_folder(str(source)) is not None


def download_weights(repository: str = DEFAULT_WEIGHTS) -> Path:
    """Fetch a hub repository's two files into the hub's cache, resuming what was begun; returns their folder.

    Raises:
        WeightsError: the hub cannot be reached or has no such files. Says how to bring the weights by hand.
    """
    cached = _cached_folder(repository)
    if cached is not None:
        return cached
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    CONSOLE.print(f"Fetching the weights {repository} (about {WEIGHTS_SIZE}; kept in the hub's cache)", style="dim")
    try:
        paths = [Path(huggingface_hub.hf_hub_download(repository, name)) for name in HUB_FILES]
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"The network's weights ({repository}, about {WEIGHTS_SIZE}) are not here and could not be fetched: "
            f"{reason[0]}\nOn a machine with a network connection run\n"
            f"    hf download {repository} --local-dir das3r-weights\n"
            "copy the folder here (config.json and model.safetensors), and give it as --network.weights das3r-weights. "
            "The geometric predictor needs no weights."
        ) from error
    return paths[0].parent


def hub_reachable(timeout_s: float = 3.0) -> bool:
    """Whether the hub answers at all: asked before a download is tried that would wait for minutes to fail."""
    import socket
    from urllib.parse import urlsplit

    from huggingface_hub import constants

    address = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or address.hostname is None:
        return False
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout_s):
            return True
    except OSError:
        return False


def load_network(
    source: str | Path = DEFAULT_WEIGHTS, device: torch.device | str = "cpu"
) -> tuple[PairwiseNetwork, WeightsReport]:
    """Build the network that the weights describe, in evaluation mode and float32.

    Args:
        source: a hub repository, a folder with `config.json` and `model.safetensors`, or a `.pth` checkpoint.

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
    partial["config.json"].write_text(json.dumps(network.config.to_hub(), indent=2) + "\n")
    save_file(kept, partial["model.safetensors"], metadata={"format": "pt", **ALIASES})
    for name, path in partial.items():
        os.replace(path, folder / name)
    return folder


def _looks_like_repository(source: str | Path) -> bool:
    owner, slash, name = str(source).partition("/")
    return (
        bool(isinstance(source, str) and slash and owner and name) and "/" not in name and owner not in (".", "..", "~")
    )


def _cached_folder(repository: str) -> Path | None:
    """Snapshot folder of a repository whose two files are complete in the hub's cache."""
    import huggingface_hub

    paths = [huggingface_hub.try_to_load_from_cache(repository, name) for name in HUB_FILES]
    if all(isinstance(path, str) for path in paths):
        return Path(str(paths[0])).parent
    return None


def locate_weights(source: str | Path) -> Path:
    """Folder or `.pth` file of the weights; a hub repository is fetched if it is not in the hub's cache.

    Raises:
        WeightsError: nothing is there, or it cannot be fetched.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path.parent if path.name in HUB_FILES else path
    if path.is_dir():
        absent = [name for name in HUB_FILES if not (path / name).is_file()]
        if absent:
            raise WeightsError(
                f"{path} is a folder without {' and '.join(absent)}; expected {' and '.join(HUB_FILES)}."
            )
        return path
    if _looks_like_repository(source) and path.suffix not in (".pth", ".safetensors"):
        return download_weights(str(source))
    raise WeightsError(
        f"No weights at {path}. Give a folder with {' and '.join(HUB_FILES)}, a .pth checkpoint, or a hub repository "
        f"such as {DEFAULT_WEIGHTS}."
    )


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
        stored = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error
    try:
        return PairwiseNetworkConfig.from_hub(stored)
    except (ValueError, TypeError) as error:
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
        raise WeightsError(f"{path} is no training checkpoint: expected a dictionary with 'model' and 'args'.")
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
