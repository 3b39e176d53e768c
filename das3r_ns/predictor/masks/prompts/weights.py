"""Where the networks that answer prompts are: a folder, the hub's cache, the hub.

What a folder holds is read from its `config.json`, so that one option names any of them. Grounding DINO and SAM 2
(Apache-2.0) are fetched when they are needed; SAM 3 has a licence of its own and is used where the user has put it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from das3r_ns.files.hub import HubError, cached_folder, fetch_folder, looks_like_repository
from das3r_ns.files.json_files import read_json_object
from das3r_ns.runtime.progress import CONSOLE

Role = Literal["words", "pointed", "both"]
"""What a network answers: words with boxes, boxes and clicks with outlines, or all of it."""

DEFAULT_REPOSITORIES = {
    "IDEA-Research/grounding-dino-tiny": "0.7 GB",
    "facebook/sam2.1-hiera-small": "0.2 GB",
}
"""Apache-2.0 both, code and weights."""
OWN_LICENCE = ("facebook/sam3",)
"""Beginnings of repositories whose licence everybody has to accept on the hub for themselves."""
ROLES: dict[str, Role] = {
    "grounding-dino": "words",
    "sam2": "pointed",
    "sam2_video": "pointed",
    "sam3": "both",
    "sam3_video": "both",
}
"""By `model_type` of `config.json`. The files of a network for videos hold that for images."""
PATTERNS = ("*.json", "*.txt", "*.safetensors")
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


class PromptWeightsError(RuntimeError):
    """Weights that cannot be found or are of another kind. The message says which, and what to do."""


class PromptWeights(NamedTuple):
    """Folders of the networks."""

    words: Path
    pointed: Path
    """The same folder for SAM 3."""


def locate_prompt_weights(sources: tuple[str, ...] = ()) -> PromptWeights:
    """Folders of the networks that answer words, and boxes and clicks; what is missing is fetched where it may be.

    Args:
        sources: folders or repositories, in any order; what none of them answers is answered by the default.

    Raises:
        PromptWeightsError: one is missing, damaged, of another kind, or two answer the same.
    """
    named = _named(sources)
    words, pointed = (
        named.get(role) or _folder_of(name) for role, name in zip(("words", "pointed"), DEFAULT_REPOSITORIES)
    )
    return PromptWeights(words, pointed)


def locate_pointing_weights(sources: tuple[str, ...] = ()) -> Path:
    """Folder of the network that answers boxes and clicks alone. Arguments and errors as of `locate_prompt_weights`."""
    return _named(sources).get("pointed") or _folder_of(list(DEFAULT_REPOSITORIES)[1])


def _named(sources: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for source in sources:
        folder = _folder_of(source)
        role = role_of(folder)
        for part in ("words", "pointed") if role == "both" else (role,):
            if part in found:
                raise PromptWeightsError(
                    f"{found[part]} and {folder} both answer {'words' if part == 'words' else 'boxes and clicks'}. "
                    "Name one Grounding DINO and one SAM 2, or one SAM 3."
                )
            found[part] = folder
    return found


def role_of(folder: Path) -> Role:
    """What the network in a folder answers.

    Raises:
        PromptWeightsError: its `config.json` cannot be read, or is that of another network.
    """
    try:
        kind = read_json_object(folder / "config.json").get("model_type")
    except (OSError, ValueError) as error:
        raise PromptWeightsError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if kind not in ROLES:
        raise PromptWeightsError(
            f"{folder} holds a network of the type {kind!r}; prompts are answered by Grounding DINO, SAM 2 and "
            f"SAM 3 in the form of the package transformers ({', '.join(ROLES)})."
        )
    return ROLES[kind]


def _folder_of(source: str) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        absent = "config.json" if not (path / "config.json").is_file() else ""
        if not any((path / name).is_file() for name in WEIGHT_FILES):
            absent = " and ".join(filter(None, (absent, WEIGHT_FILES[0])))
        if absent:
            raise PromptWeightsError(
                f"{path} is not a folder with {absent}. Give the folder of a network in the form of the package "
                "transformers, as `hf download REPOSITORY --local-dir FOLDER` writes it."
            )
        return path
    if not looks_like_repository(source):
        raise PromptWeightsError(
            f"the weights {source} do not exist. Give a folder, or a repository of the Hugging Face hub "
            f"such as {next(iter(DEFAULT_REPOSITORIES))}."
        )
    for name in WEIGHT_FILES:
        if (cached := cached_folder(source, ("config.json", name))) is not None:
            return cached
    if source.startswith(OWN_LICENCE):
        raise PromptWeightsError(
            f"the weights {source} are not on this machine, and are not fetched for you: SAM 3 has a licence of its "
            f"own (the SAM License). Read and accept it at https://huggingface.co/{source}, then run\n"
            f"    hf auth login && hf download {source}\n"
            "and this command again. Where no weights are named, Grounding DINO and SAM 2 (Apache-2.0) are taken."
        )
    size = DEFAULT_REPOSITORIES.get(source)
    CONSOLE.print(
        f"Fetching the weights {source} ({f'{size}, ' if size else ''}kept in the hub's cache)",
        style="dim", soft_wrap=True,
    )  # fmt: skip
    try:
        return fetch_folder(source, PATTERNS)
    except HubError as error:
        raise PromptWeightsError(
            f"the weights {source} are needed, are not here and could not be fetched: {error}\n"
            "On a machine with a network connection run\n"
            f"    hf download {source} --local-dir {source.rpartition('/')[2]}\n"
            "copy the folder here, and name it: --masks-prompt-weights FOLDER (Grounding DINO's and SAM 2's, one after "
            "the other), or --clicks-weights FOLDER of das3r edit."
        ) from error
