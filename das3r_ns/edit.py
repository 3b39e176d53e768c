"""`das3r edit`: see what was decided to move, and correct it, in the browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from das3r_ns.dataparser.cache import cached_scene
from das3r_ns.dataparser.cache_folder import DEFAULT_CACHE
from das3r_ns.dataparser.input_kinds import kind_of
from das3r_ns.dataparser.options import PredictionOptions
from das3r_ns.predictor.masks.config import RefinerName
from das3r_ns.runtime.progress import CONSOLE

PORT = 7017


@dataclass
class EditOptions:
    """Where the page is served, and what draws outlines."""

    host: str = "127.0.0.1"
    """Address at which the page is served. The default is reached from this machine only; through an SSH tunnel as
    well: `ssh -L 7017:localhost:7017 MACHINE`. 0.0.0.0 lets everybody in the network change the masks."""
    port: int = PORT
    """Port; the next one that is free is taken."""
    refiner: RefinerName = "none"
    """What draws the outlines of objects that are followed through the clip, beside flow and colour: `none`;
    `salience` (extra `salience`, about a second a frame without a GPU); `sam2` (extra `sam2`, a GPU advised); `auto`,
    salience where its extra is installed."""
    clicks: Literal["cues", "sam"] = "cues"
    """What a click on something forgotten means: `cues`, what belongs together in motion, colour and depth; `sam`, the
    object that SAM 2 sees there (extra `prompt`; fetches 0.2 GB once). `[` and `]` go through the former."""
    clicks_weights: tuple[str, ...] = ()
    """Folder or hub repository of SAM 2 or SAM 3, for `clicks` sam. Empty: SAM 2.1 (Apache-2.0)."""
    cache_dir: Path = DEFAULT_CACHE
    """Folder in which the scenes of clips are kept, as of `ns-train`."""
    prediction: PredictionOptions = field(default_factory=PredictionOptions)
    """How a clip is read and predicted, where it was not yet."""


def edit(
    data: Annotated[Path, tyro.conf.Positional],
    options: Annotated[EditOptions, tyro.conf.arg(name="")] = EditOptions(),  # noqa: B008  (never changed)
    on_ready: Annotated[Callable[[str], None] | None, tyro.conf.Suppress] = None,
) -> None:
    """Walk through a clip in the browser: see what was taken for moving and why, and correct it.

    Every stroke is kept beside the prediction, in SCENE/edits; nothing predicted is changed, and each can be removed
    again. Training picks the edits up, also while it runs. Ctrl-C closes the page.

    Args:
        data: scene folder, or a video or folder of images, which is predicted if it was not yet.
        options: see there.
        on_ready: called with the address when the page is there.

    Raises:
        FileNotFoundError, ValueError: the data are not as they must be.
        RuntimeError: another `das3r edit` has the scene open, or weights are missing.
        ImportError: a package that an option needs is missing.
        OSError: the scene cannot be written, or nothing can be served at the address.
    """
    if not data.exists():
        raise FileNotFoundError(f"{data} does not exist. Give a scene folder, a video or a folder of images.")
    if options.clicks_weights and options.clicks != "sam":
        raise ValueError("--clicks-weights says something about --clicks sam, which is not given.")
    from das3r_ns.predictor.masks.prompts.build import build_pointing

    segmenter = build_pointing(options.clicks_weights) if options.clicks == "sam" else None  # before a prediction
    scene = data if kind_of(data) == "scene" else cached_scene(data, options.prediction, options.cache_dir)
    from das3r_ns.editing.session import EditSession
    from das3r_ns.predictor.masks.refiners.build import build_refiner

    with EditSession(scene, build_refiner(options.refiner), segmenter) as session:
        count = len(session.store.edits.done)
        if count:
            CONSOLE.print(f"{count} edit{'s' if count > 1 else ''} from before.", highlight=False)
        asyncio.run(_serve(session, options, on_ready))
    CONSOLE.print(f"The edits lie in {scene / 'edits'}. Train with them: ns-train das3r --data {data}", soft_wrap=True)


async def _serve(session: object, options: EditOptions, on_ready: Callable[[str], None] | None) -> None:
    from das3r_ns.editing.server import LOCAL, listen, make_app
    from das3r_ns.editing.session import EditSession

    assert isinstance(session, EditSession)
    local = options.host in LOCAL
    # Under a name of its own the machine may be asked for by any of its names.
    server, port = listen(make_app(session, LOCAL if local else None), options.host, options.port)
    address = f"http://{'localhost' if local else options.host}:{port}"
    if not local:
        CONSOLE.print(f"Everybody who reaches {options.host} can change these masks.", style="yellow", soft_wrap=True)
    CONSOLE.print(
        f"Edit the masks of {len(session.clip)} frames: {address}   (Ctrl-C closes the page; all is stored already)",
        soft_wrap=True,
    )
    if on_ready is not None:
        on_ready(address)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass
    finally:
        server.stop()
