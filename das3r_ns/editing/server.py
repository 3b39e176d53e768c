"""The page of `das3r edit` and what it asks for, over HTTP.

Nothing is read or written but one scene folder: requests name frames by number and edits by id, never a path. Any web
site can make a browser send requests to this machine, so requests must name a host that is meant (no DNS rebinding)
and changes must come as JSON (which no other site can send).
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from das3r_ns import __version__
from das3r_ns.editing.actions import Answer
from das3r_ns.editing.clip import Kept
from das3r_ns.editing.cues import CUE_NAMES
from das3r_ns.editing.session import EditSession
from das3r_ns.runtime.failures import sentence_of

PAGE = Path(__file__).parent / "page"
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_BODY_BYTES = 1 << 20
"""A stroke of 20 000 points has less."""
SHOWN_SIDE_PX = 1280
"""Longer side of the frames that are sent."""
JPEG_QUALITY = 88
JPEG_MEMORY_BYTES = 64 << 20
PORTS_TRIED = 20
CUE_RANGES = {"residual": 3.0, "speed": 3.0}
"""Values that are shown as strongest; 1 for all others."""
MOVING_RGBA, TOLD_MOVING_RGBA, TOLD_STATIC_RGBA = (230, 60, 60, 140), (255, 150, 0, 170), (60, 170, 255, 120)
POLICY = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'"


def make_app(session: EditSession, hosts: frozenset[str] | None = LOCAL) -> Application:
    """The application that serves one session.

    Args:
        hosts: names under which the browser may ask for it; None for any.
    """
    pool = ThreadPoolExecutor(2, "das3r-edit")
    shared = {"session": session, "hosts": hosts, "pool": pool, "jpegs": Kept[bytes](JPEG_MEMORY_BYTES, len)}
    return Application(
        [
            (r"/", _Page, shared),
            (r"/page/(.*)", _PageFile, {"path": str(PAGE)}),
            (r"/api/scene", _Scene, shared),
            (r"/api/state", _State, shared),
            (r"/api/progress", _ProgressOf, shared),
            (r"/api/frame/(\d{1,6})\.jpg", _Frame, shared),
            (r"/api/mask/(\d{1,6})\.png", _Mask, shared),
            (r"/api/cue/(\d{1,6})/([a-z]{1,16})\.png", _Cue, shared),
            (r"/api/cues/(\d{1,6})", _CuesAt, shared),
            (r"/api/(click|brush|lasso|undo|redo|remove|cancel)", _Act, shared),
        ],
        log_function=lambda handler: None,
    )


def listen(app: Application, host: str, port: int) -> tuple[HTTPServer, int]:
    """Serve `app` at `host`, at `port` or the next one that is free; returns the server and its port.

    Raises:
        OSError: no port is free, or the machine has no such host.
    """
    server = HTTPServer(app, max_body_size=MAX_BODY_BYTES)
    for tried in range(port, port + PORTS_TRIED):
        try:
            sockets = bind_sockets(tried, host, family=socket.AF_UNSPEC)
        except OSError as error:
            if tried == port + PORTS_TRIED - 1 or isinstance(error, socket.gaierror):
                raise OSError(
                    f"nothing can be served at {host}:{port} ({error}). Give another --host or --port."
                ) from error
            continue
        server.add_sockets(sockets)
        return server, sockets[0].getsockname()[1]
    raise AssertionError


class _Handler(RequestHandler):
    def initialize(
        self, session: EditSession, hosts: frozenset[str] | None, pool: ThreadPoolExecutor, jpegs: Kept[bytes]
    ) -> None:
        self.session, self.hosts, self.pool, self.jpegs = session, hosts, pool, jpegs

    def set_default_headers(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Server", f"das3r_ns/{__version__}")
        self.set_header("Cache-Control", "no-store")

    def prepare(self) -> None:
        # Behind an SSH tunnel the port is another one: only the name counts.
        if self.hosts is not None and (self.request.host_name or "").lower().strip("[]") not in self.hosts:
            raise HTTPError(403, reason="not served under this name; give it with --host")
        if self.request.method == "POST":
            kind = self.request.headers.get("Content-Type", "").split(";")[0].strip()
            if kind != "application/json":
                raise HTTPError(415, reason="changes are sent as application/json")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.finish({"error": self._reason})

    def frame_of(self, number: str) -> int:
        frame = int(number)
        if frame >= len(self.session.clip):
            raise HTTPError(404, reason=f"the scene has {len(self.session.clip)} frames")
        return frame

    async def work(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in a thread, so that the page stays responsive."""
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)


class _Page(_Handler):
    def get(self) -> None:
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((PAGE / "index.html").read_bytes())


class _PageFile(StaticFileHandler):
    def set_extra_headers(self, path: str) -> None:
        del path
        self.set_header("Cache-Control", "no-cache")


class _Scene(_Handler):
    def get(self) -> None:
        session = self.session
        clip = session.clip
        quality = clip.quality or {}
        doubts = (quality.get("clip") or {}).get("doubts")
        self.finish(
            {
                "name": clip.folder.absolute().name,
                "frames": len(clip),
                "names": list(clip.files.names),
                "times_s": clip.files.times_s,
                "fps": clip.files.fps,
                "height": clip.files.image_size[0],
                "width": clip.files.image_size[1],
                "trust": clip.trust(),
                "doubts": doubts if isinstance(doubts, list) else [],
                "cues": list(CUE_NAMES),
                "version": __version__,
            }
        )


class _State(_Handler):
    async def get(self) -> None:
        self.finish(await self.work(self.session.state))


class _ProgressOf(_Handler):
    def get(self) -> None:
        self.finish(asdict(self.session.progress))


class _Frame(_Handler):
    async def get(self, number: str) -> None:
        frame = self.frame_of(number)
        content = await self.work(lambda: self.jpegs.get(frame, lambda: self._encoded(frame)))
        self.set_header("Content-Type", "image/jpeg")
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(content)

    def _encoded(self, frame: int) -> bytes:
        image = self.session.clip.files.image(frame)
        factor = SHOWN_SIDE_PX / max(image.shape[:2])
        if factor < 1:
            image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


class _Mask(_Handler):
    async def get(self, number: str) -> None:
        frame = self.frame_of(number)
        self.set_header("Content-Type", "image/png")
        self.finish(await self.work(self._encoded, frame))

    def _encoded(self, frame: int) -> bytes:
        masks = self.session.masks
        moving = masks.moving(frame)
        rgba = np.zeros((*moving.shape, 4), np.uint8)
        rgba[moving] = MOVING_RGBA
        told_moving, told_static = masks.told(frame)
        rgba[told_moving], rgba[told_static] = TOLD_MOVING_RGBA, TOLD_STATIC_RGBA
        return _png(rgba[..., [2, 1, 0, 3]])


class _Cue(_Handler):
    async def get(self, number: str, name: str) -> None:
        frame = self.frame_of(number)
        cues = await self.work(self.session.cues, frame)
        if name not in cues.values:
            raise HTTPError(404, reason=f"nothing is known about {name} in this frame: its camera is not known")
        shade = (cues.values[name] / CUE_RANGES.get(name, 1.0)).clip(0, 1)
        self.set_header("Content-Type", "image/png")
        self.finish(_png(cv2.applyColorMap(np.round(shade * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)))


class _CuesAt(_Handler):
    async def get(self, number: str) -> None:
        frame = self.frame_of(number)
        x, y = (self._share(name) for name in ("x", "y"))
        cues = await self.work(self.session.cues, frame)
        height, width = self.session.clip.map_size
        row, column = min(int(y * height), height - 1), min(int(x * width), width - 1)
        self.finish({name: round(float(values[row, column]), 3) for name, values in cues.values.items()})

    def _share(self, name: str) -> float:
        try:
            value = float(self.get_query_argument(name))
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise HTTPError(400, reason=f"{name} is a share of the image, 0 to 1")
        return value


class _Act(_Handler):
    async def post(self, action: str) -> None:
        try:
            given = json.loads(self.request.body or b"{}")
            function = _action(self.session, action, given)
        except (ValueError, TypeError, KeyError) as error:
            raise HTTPError(400, reason="the request cannot be understood") from error
        if action == "cancel":  # while another action is under way
            function()
            self.finish({"text": ""})
            return
        try:
            answer: Answer = await self.work(function)
        except (ValueError, RuntimeError, OSError) as error:
            self.set_status(409)
            self.finish({"error": sentence_of(error)})
            return
        edit = None if answer.edit is None else answer.edit.id
        self.finish({"text": answer.text, "edit": edit, "state": await self.work(self.session.state)})


def _action(session: EditSession, action: str, given: dict[str, Any]) -> Callable[[], Any]:
    """What a request asks for.

    Raises:
        ValueError, TypeError, KeyError: it lacks something, or holds what cannot be.
    """
    if not isinstance(given, dict):
        raise TypeError("not an object")
    if action in ("undo", "redo", "cancel"):
        return getattr(session, action)
    if action == "remove":
        name = str(given["id"])
        return lambda: session.remove(name)
    frame, moving, whole = int(given["frame"]), bool(given["moving"]), bool(given.get("whole_clip", False))
    if not 0 <= frame < len(session.clip):
        raise ValueError("no such frame")
    if action == "click":
        at, level = _place(given["at"]), int(given.get("level", 0))
        replaces = given.get("replaces")
        return lambda: session.click(frame, at, moving, whole, level, None if replaces is None else str(replaces))
    points = [_place(point) for point in given["points"]]
    if action == "brush":
        radius = float(given["radius"])
        if not 0 < radius < 1:
            raise ValueError("no such radius")
        return lambda: session.brush(frame, points, radius, moving, whole)
    return lambda: session.lasso(frame, points, moving, whole)


def _place(value: Any) -> tuple[float, float]:
    x, y = value
    place = float(x), float(y)
    if not all(-1 <= share <= 2 for share in place):
        raise ValueError("a place outside the image")
    return place


def _png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
logging.getLogger("tornado.general").setLevel(logging.ERROR)
