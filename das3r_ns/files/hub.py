"""Repositories of the Hugging Face hub: recognised by name, found in its cache on this machine, fetched into it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class HubError(RuntimeError):
    """A repository that cannot be fetched. The message is the hub's reason, one line."""


def looks_like_repository(name: str | Path) -> bool:
    """Whether it reads as OWNER/NAME."""
    if not isinstance(name, str):
        return False
    owner, _, rest = name.partition("/")
    return bool(owner and rest) and "/" not in rest and owner not in (".", "..", "~")


def cached_folder(repository: str, names: Sequence[str]) -> Path | None:
    """Folder of a repository in the hub's cache that holds the files of these names; None where there is none. Asks no
    server."""
    import huggingface_hub

    paths = [huggingface_hub.try_to_load_from_cache(repository, name) for name in names]
    return Path(str(paths[0])).parent if all(isinstance(path, str) for path in paths) else None


def fetch_folder(repository: str, patterns: Sequence[str]) -> Path:
    """Fetch the files of a repository whose names match one of the patterns into the hub's cache, going on with what
    was begun; returns their folder.

    Raises:
        HubError: the hub cannot be reached, has no such repository, or does not give it to everybody.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise HubError(lines[0]) from error
