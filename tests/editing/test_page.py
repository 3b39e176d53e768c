"""The page of `das3r edit` in a real browser, and what its server refuses."""

import asyncio
import json
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import moving_square as world
import numpy as np
import pytest

from das3r_ns.editing.server import listen, make_app
from das3r_ns.editing.session import EditSession
from das3r_ns.scene import read_edits, read_scene

COUNT = 30
NOTHING = np.zeros(world.SIZE, bool)


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trust = {"frames": {"trust": [1.0] * 20 + [0.4] * 10}, "clip": {"doubts": []}, "distrusted_frames": []}
    return world.write(tmp_path_factory.mktemp("page") / "scene", [NOTHING] * COUNT, quality=trust)


@pytest.fixture
def scene(forgotten: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(forgotten, tmp_path / "scene"))


@pytest.fixture
def served(scene: Path) -> Iterator[str]:
    """Address of the page of a scene."""
    ready, address, loops = threading.Event(), [], []

    async def serve(session: EditSession) -> None:
        server, port = listen(make_app(session), "127.0.0.1", 7117)
        address.append(f"http://localhost:{port}")
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        ready.set()
        await stop.wait()
        server.stop()

    with EditSession(scene) as session:
        thread = threading.Thread(target=asyncio.run, args=(serve(session),))
        thread.start()
        assert ready.wait(10)
        yield address[0]
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def ask(url: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, sent), timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_click_is_an_edit_and_the_state_comes_back(served: str, scene: Path) -> None:
    body = {"frame": 10, "at": world.middle(world.square(10)), "moving": True}
    status, content = ask(f"{served}/api/click", body)
    assert status == 200
    answer = json.loads(content)
    assert answer["state"]["shares"][10] == pytest.approx(world.square(10).mean(), rel=0.2)
    assert [edit.id for edit in read_edits(scene).done] == [answer["edit"]]
    for path in ("frame/10.jpg", "mask/10.png", "cue/10/residual.png"):
        assert ask(f"{served}/api/{path}")[0] == 200
    cues = json.loads(ask(f"{served}/api/cues/10?x=0.5&y=0.5")[1])
    assert set(cues) >= {"probability", "residual", "colour", "depth", "motion"}


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("click", {"frame": COUNT, "at": [0.5, 0.5], "moving": True}),
        ("click", {"frame": 0, "at": [9, 0.5], "moving": True}),
        ("click", {"frame": 0, "moving": True}),
        ("click", []),
        ("brush", {"frame": 0, "points": [[0.5, 0.5]], "radius": -1, "moving": True}),
        ("lasso", {"frame": 0, "points": [[float("nan"), 0]], "moving": True}),
    ],
)
def test_what_cannot_be_meant_changes_nothing(served: str, scene: Path, action: str, body: Any) -> None:
    assert ask(f"{served}/api/{action}", body)[0] == 400
    assert not (scene / "edits" / "edits.json").exists()


def test_a_mistake_of_the_user_is_a_sentence(served: str) -> None:
    status, content = ask(f"{served}/api/click", {"frame": 0, "at": [0.9, 0.9], "moving": False})
    assert status == 409
    assert "nothing is marked as moving there" in json.loads(content)["error"]


def test_other_web_sites_change_nothing(served: str, scene: Path) -> None:
    undo = f"{served}/api/undo"
    assert ask(undo, {}, Host="attacker.example")[0] == 403
    assert ask(undo, {}, Content_Type="text/plain")[0] == 415
    assert ask(f"{served}/api/scene", Host="attacker.example:7117")[0] == 403
    assert ask(undo, {}, Host="localhost:9999")[0] == 200  # a tunnel from another port
    assert not (scene / "edits" / "edits.json").exists()


@pytest.mark.parametrize("path", ["page/../server.py", "page/%2e%2e/server.py", "page//etc/passwd", "api/frame/99.jpg"])
def test_no_other_file_is_served(served: str, path: str) -> None:
    assert ask(f"{served}/{path}")[0] in (403, 404)


# --- In a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def browser() -> Iterator[Any]:
    """Debian's chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium (extra dev)")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,800"):
        options.add_argument(argument)
    window = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield window
    window.quit()


def wait(browser: Any, condition: str, seconds: float = 60) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds, 0.05).until(lambda b: b.execute_script(f"return {condition}"))


def click_on(browser: Any, at: tuple[float, float]) -> None:
    """Click a place of the frame, as a hand would."""
    from selenium.webdriver.common.action_chains import ActionChains

    x, y = browser.execute_script(
        "const b = box(), r = canvas.width / canvas.clientWidth;"
        f"return [(b.left + {at[0]} * b.width) / r - canvas.clientWidth / 2,"
        f"(b.top + {at[1]} * b.height) / r - canvas.clientHeight / 2]"
    )
    ActionChains(browser).move_to_element_with_offset(browser.find_element("id", "canvas"), x, y).click().perform()


def press(browser: Any, *keys: str) -> None:
    browser.find_element("tag name", "body").send_keys(*keys)


def test_click_carry_undo_and_keys_in_a_browser(served: str, scene: Path, browser: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    def moving() -> np.ndarray:
        return (read_scene(scene).dynamic_prob > 0.5).numpy()

    browser.get(served)
    wait(browser, "document.body.dataset.ready === '1'")
    press(browser, Keys.SHIFT, Keys.ARROW_RIGHT)
    wait(browser, "document.body.dataset.frame === '10' && shown.frame === 10")
    click_on(browser, world.middle(world.square(10)))
    wait(browser, "state.edits.length === 1 && !busy")
    assert world.overlap(moving()[10], world.square(10)) > 0.8
    assert not moving()[11].any()
    press(browser, Keys.CONTROL, "z")
    wait(browser, "state.edits.length === 0 && !busy")
    assert not moving().any()
    # The object in the whole clip, by keys and one click.
    press(browser, "w")
    click_on(browser, world.middle(world.square(10)))
    wait(browser, "state.edits.length === 1 && !busy", 120)
    found = moving()
    assert min(world.overlap(found[i], world.square(i)) for i in range(COUNT)) > 0.75
    assert browser.execute_script("return state.shares.every((share) => share > 0.02)")
    # Undone and redone.
    press(browser, Keys.CONTROL, "z")
    wait(browser, "state.edits.length === 0 && !busy")
    press(browser, Keys.CONTROL, "y")
    wait(browser, "state.edits.length === 1 && !busy")
    assert (moving() == found).all()
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors
