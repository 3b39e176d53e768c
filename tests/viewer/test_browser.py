"""The panel in a real browser: the first view, frames, layers, the cut, an export after the slider moved, and the other
results.

Chromium without a window, driven by Selenium; skipped where either is missing (Debian: `chromium`, `chromium-driver`).
"""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import html5lib
import numpy as np
import pytest
import torch
from plyfile import PlyData
from tiny_run import FRAMES, scene_from_truth, tiny_config, train

from das3r_ns.runs.loading import load_run
from das3r_ns.runs.staticness_cut import FILE
from das3r_ns.video.clip import read_clip
from das3r_ns.video.config import VideoConfig

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
    pytest.mark.xdist_group("nerfstudio"),
]

PATIENCE_S = 120.0
BEHIND_RGB = (38, 42, 55)
"""What the host shows where nothing is."""


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(Exception):
            if (value := found()) is not None and value is not False:
                return value
        time.sleep(0.3)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s in vain for {what}")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    config = train(tiny_config("das3r-lite", scene_from_truth(folder / "walk"), folder / "outputs"))[0]
    # Sixteen steps leave every Gaussian as static as it began; a cut is to take a third of them.
    (path,) = (config.parent / "nerfstudio_models").glob("*.ckpt")
    state = torch.load(path, weights_only=True)
    staticness = state["pipeline"]["_model.gauss_params.staticness"]
    state["pipeline"]["_model.gauss_params.staticness"] = torch.linspace(0.1, 4.0, len(staticness))[:, None]
    torch.save(state, path)
    return config


@pytest.fixture(scope="module")
def address(run) -> Iterator[str]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    program = Path(sys.executable).with_name("ns-viewer")
    command = [str(program), "--load-config", str(run), "--viewer.websocket-port", str(port)]
    log = (run.parent / "log.txt").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def answers() -> bool:
        assert process.poll() is None
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    wait_for("ns-viewer", answers)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(30)
    process.kill()
    log.close()


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def page(address, downloads) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for argument in (
        *("--headless=new", "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"),
        *("--enable-unsafe-swiftshader", "--window-size=1280,800", "--disable-dev-shm-usage"),
    ):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    # The second download of a page would wait for somebody to allow it.
    prefs = {
        "download.default_directory": str(downloads),
        "profile.default_content_setting_values.automatic_downloads": 1,
    }
    options.add_experimental_option("prefs", prefs)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.get(address)
    yield driver
    driver.quit()


def window(page: Any) -> np.ndarray:
    """The scene as RGB, without the panel and the axes in the corner."""
    image = cv2.imdecode(np.frombuffer(page.get_screenshot_as_png(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return image[80:-120, 80:900]


def row(page: Any, label: str) -> Any:
    return page.find_element("xpath", f"//label[text()='{label}']/ancestor::div[contains(@class,'Flex-root')][1]")


def enter(page: Any, label: str, value: str) -> None:
    field = row(page, label).find_element("xpath", ".//input[@type='text']")
    field.click()
    field.send_keys("\ue009a\ue000", value, "\ue007")  # select all, type, Enter


def press(page: Any, text: str) -> None:
    button = wait_for(
        text, lambda: page.find_element("xpath", f"//*[text()='{text}' or (self::button and .='{text}')]")
    )
    page.execute_script("arguments[0].click()", button)


def choose(page: Any, label: str, value: str) -> None:
    row(page, label).find_element("xpath", ".//input[not(@type='hidden')]").click()

    def option() -> Any:
        options = page.find_elements("xpath", "//*[@role='option']")
        return next(o for o in options if o.is_displayed() and o.text == value)

    page.execute_script("arguments[0].click()", wait_for(value, option))


def test_a_visitor_sees_the_scene_from_the_first_camera_and_nothing_behind_it(run, page):
    def filled() -> bool:
        behind = np.abs(window(page).astype(int) - BEHIND_RGB).max(axis=-1) < 12
        dark = window(page).max(axis=-1) < 24  # the page before the first image
        return float((behind | dark).mean()) < 0.05

    wait_for("the scene to fill the window", filled)
    model = load_run(run).pipeline
    first = model.datamanager.train_dataset.get_numpy_image(0)[..., :3]
    seen = cv2.resize(window(page), (24, 14), interpolation=cv2.INTER_AREA).astype(float)
    # The window shows the middle of the frame: what is cut off above and at the left is a guess of this test.
    expected = cv2.resize(first, (24, 14), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(seen.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 40


def test_frames_and_layers_change_what_is_seen(page):
    before = window(page)
    enter(page, "Frame", "5")
    wait_for("another frame", lambda: np.abs(window(page).astype(int) - before).mean() > 3)
    time.sleep(2)
    render = window(page)
    choose(page, "Show", "what was removed")

    def reddened() -> bool:
        change = window(page).astype(int) - render
        return bool((change[..., 0] - change[..., 2] > 25).mean() > 0.01)

    wait_for("what was removed, in red", reddened)
    choose(page, "Show", "input beside render")
    wait_for("bands above and below", lambda: np.abs(window(page)[:20].astype(int) - BEHIND_RGB).max() < 12)
    choose(page, "Show", "render")


def test_an_export_after_the_slider_moved_holds_what_is_shown(run, page):
    model = load_run(run).pipeline.model
    staticness = model.gaussian_staticness.detach()
    cut = 0.8
    enter(page, "Cut of staticness", str(cut))  # each key is a value of its own: 0, 0., 0.8
    wait_for("the cut to be kept", lambda: json.loads((run.parent / FILE).read_text())["cull_staticness"] == cut)
    press(page, "Results")
    press(page, "PLY")
    path = run.parent / "viewer" / "splat.ply"
    wait_for("the PLY", path.is_file)
    count = len(PlyData.read(str(path))["vertex"].data)
    opacity = model.gauss_params["opacities"].detach().sigmoid().flatten() * staticness
    assert count == int(((staticness >= cut) & (opacity > 1 / 255)).sum())
    assert 0 < count < len(staticness)
    press(page, "Cut of the method")
    wait_for("the cut to be forgotten", lambda: not (run.parent / FILE).exists())


def test_static_video_and_report_are_written_and_reach_the_browser(run, page, downloads):
    if not page.find_elements("xpath", "//button[.='Static video']"):
        press(page, "Results")  # the test before left it open
    for label, name in (("Static video", "static.mp4"), ("Report", "report.html")):
        press(page, label)
        path = run.parent / "viewer" / name
        wait_for(f"{label} in the panel", lambda path=path: page.find_elements("xpath", f"//*[text()='{path}']"))
        wait_for(f"{name} in the browser", (downloads / name).is_file)
        assert (downloads / name).read_bytes() == path.read_bytes()
    assert len(read_clip(run.parent / "viewer" / "static.mp4", VideoConfig(max_frames=None))) == FRAMES
    html5lib.HTMLParser(strict=True).parse((downloads / "report.html").read_text(encoding="utf-8"))
