"""How fast one moves through the timeline of `das3r edit`, and how much memory it takes.

A scene of 300 frames of 1920x1080 with ten bystanders, each an edit through the whole clip, is served as the command
serves it; frame, mask and (in a browser) what is drawn are timed for every frame in turn, then for jumps.

    python benchmarks/edit_page.py
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import torch
import tyro

from das3r_ns.editing.server import listen, make_app
from das3r_ns.editing.session import EditSession
from das3r_ns.scene import Edit, EditStore, PointCloud, Scene, frame_name, write_scene

MAP_SIZE = (243, 432)
"""Of the geometric predictor's maps, of 16:9."""


def main(
    num_frames: int = 300, height: int = 1080, width: int = 1920, bystanders: int = 10, browser: bool = True
) -> None:
    """Build the scene, serve it, time it.

    Args:
        num_frames: of the clip.
        height: of its frames.
        width: of its frames.
        bystanders: edits that speak of every frame.
        browser: time what chromium shows as well, where it is installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        scene = _scene(Path(folder) / "scene", num_frames, (height, width), bystanders)
        process, before = psutil.Process(), psutil.Process().memory_info().rss
        start, busy = time.perf_counter(), time.process_time()
        with EditSession(scene) as session:
            print(f"opened in {time.perf_counter() - start:.1f} s ({time.process_time() - busy:.1f} s of processor)")
            address, stop = _serve(session)
            start, busy = time.perf_counter(), time.process_time()
            _fetch(f"{address}/api/state")
            print(f"timeline in {time.perf_counter() - start:.2f} s ({time.process_time() - busy:.2f} s of processor)")
            jumps = np.random.default_rng(0).permutation(num_frames).tolist()
            for name, order in (("one after the other", range(num_frames)), ("jumps", jumps)):
                seconds, computed = [], time.process_time()
                for i in order:
                    start = time.perf_counter()
                    _fetch(f"{address}/api/frame/{i}.jpg")
                    _fetch(f"{address}/api/mask/{i}.png")
                    seconds.append(time.perf_counter() - start)
                computed = (time.process_time() - computed) / num_frames
                print(
                    f"{name}: median {np.median(seconds):.3f} s, 99 % {np.quantile(seconds, 0.99):.3f} s a frame "
                    f"({computed:.3f} s of processor)"
                )
            if browser:
                _in_browser(address, jumps[:100])
            print(
                f"memory: {(process.memory_info().rss - before) / 2**20:.0f} MiB more than before the scene was opened"
            )
            stop()


def _scene(folder: Path, n: int, size: tuple[int, int], bystanders: int) -> Path:
    rng = np.random.default_rng(0)
    backdrop = cv2.GaussianBlur(rng.integers(0, 255, (size[0], size[1] + n, 3)).astype(np.uint8), (0, 0), 2)
    none = PointCloud(
        torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.uint8), torch.ones(1), torch.zeros(1, dtype=torch.int32)
    )
    small = Scene(
        torch.eye(4).repeat(n, 1, 1), torch.eye(3).repeat(n, 1, 1) * 500, MAP_SIZE, torch.ones(n, *MAP_SIZE),
        torch.ones(n, *MAP_SIZE), torch.zeros(n, *MAP_SIZE),
        none,
        torch.ones(n, dtype=torch.bool), tuple(f"frame_{i + 1:05d}" for i in range(n)),
    )  # fmt: skip
    write_scene(small, torch.zeros(n, *MAP_SIZE, 3, dtype=torch.uint8), folder)
    transforms = (folder / "transforms.json").read_text(encoding="utf-8")
    transforms = transforms.replace(f'"w": {MAP_SIZE[1]}', f'"w": {size[1]}').replace(
        f'"h": {MAP_SIZE[0]}', f'"h": {size[0]}'
    )
    (folder / "transforms.json").write_text(transforms, encoding="utf-8")
    for i in range(n):
        image = np.ascontiguousarray(backdrop[:, i : i + size[1]])
        cv2.imwrite(str(folder / "images" / f"{frame_name(i)}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        cv2.imwrite(str(folder / "masks" / f"{frame_name(i)}.png"), np.full(size, 255, np.uint8))
    store = EditStore(folder, small.names)
    layer_size = (576, 1024)
    for k in range(bystanders):
        layers = {}
        for i in range(n):
            layer = np.zeros(layer_size, np.uint8)
            cv2.ellipse(layer, (80 + 90 * k + i // 3, 300 + 20 * k), (25, 90), 0, 0, 360, (1,), -1)
            layers[i] = layer > 0
        store.add(Edit("", "region", True, (), whole_clip=True), layers)
    store.close()
    return folder


def _serve(session: EditSession) -> tuple[str, Callable[[], object]]:
    ready, found = threading.Event(), {}

    async def serve() -> None:
        server, port = listen(make_app(session), "127.0.0.1", 7217)
        found.update(port=port, loop=asyncio.get_running_loop(), stop=asyncio.Event())
        ready.set()
        await found["stop"].wait()
        server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    ready.wait(10)
    return f"http://localhost:{found['port']}", lambda: found["loop"].call_soon_threadsafe(found["stop"].set)


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as reply:
        return reply.read()


def _in_browser(address: str, jumps: list[int]) -> None:
    """From the request to the drawn frame, in chromium without a window."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        print("no chromium here: not timed in a browser")
        return
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,900"):
        options.add_argument(argument)
    window = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        window.get(address)
        while window.execute_script("return document.body.dataset.ready") != "1":
            time.sleep(0.05)
        window.set_script_timeout(600)
        for name, order in (("one after the other", list(range(1, 150))), ("jumps", jumps)):
            took = window.execute_async_script(
                "const done = arguments[arguments.length - 1], took = [];"
                "(async () => { for (const i of arguments[0]) { const t = performance.now(); await show(i);"
                " took.push((performance.now() - t) / 1000); } done(took); })();",
                order,
            )
            print(f"in chromium, {name}: median {np.median(took):.3f} s, 99 % {np.quantile(took, 0.99):.3f} s a frame")
    finally:
        window.quit()


if __name__ == "__main__":
    tyro.cli(main)
