"""Where the weights of the pairwise network are: the hub, its cache, a folder, a training checkpoint."""

from __future__ import annotations

from pathlib import Path

from das3r_ns.files.hub import cached_folder, looks_like_repository
from das3r_ns.predictor.network.settings import DEFAULT_WEIGHTS
from das3r_ns.runtime.progress import CONSOLE

WEIGHTS_SIZE = "2.4 GB"
HUB_FILES = ("config.json", "model.safetensors")


class WeightsError(RuntimeError):
    """Weights that cannot be found or do not fit. The message says which, and what to do."""


def weights_available(source: str | Path = DEFAULT_WEIGHTS) -> bool:
    """Whether the weights are on this machine already: a local file or folder, or in the hub's cache. No network."""
    path = Path(source).expanduser()
    if path.is_dir():
        return all((path / name).is_file() for name in HUB_FILES)
    if path.exists():
        return True
    return looks_like_repository(source) and _cached_folder(str(source)) is not None


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
    if looks_like_repository(source) and path.suffix not in (".pth", ".safetensors"):
        return download_weights(str(source))
    raise WeightsError(
        f"No weights at {path}. Give a folder with {' and '.join(HUB_FILES)}, a .pth checkpoint, or a hub repository "
        f"such as {DEFAULT_WEIGHTS}."
    )


def _cached_folder(repository: str) -> Path | None:
    """Snapshot folder of a repository whose two files are complete in the hub's cache."""
    return cached_folder(repository, HUB_FILES)
