"""One action of a session: that there is one at a time, how far it is, and what it did, in words."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from das3r_ns.editing.carry import Carried
from das3r_ns.scene.edits import Edit


class Cancelled(RuntimeError):
    """Somebody asked to stop what was under way."""


@dataclass
class Progress:
    """What is under way, for who watches."""

    text: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Answer:
    """What an action did."""

    text: str
    """One line for the user."""
    edit: Edit | None = None


class Action:
    """One action at a time; what is said about progress ends with it.

    Raises:
        RuntimeError: another one is under way.
    """

    def __init__(self, acting: threading.Lock, cancel: threading.Event, progress: Progress) -> None:
        self._acting, self._cancel, self._progress = acting, cancel, progress

    def __enter__(self) -> None:
        if not self._acting.acquire(blocking=False):
            raise RuntimeError("another action is still under way; wait for it, or press Esc to stop it.")
        self._cancel.clear()

    def __exit__(self, *_: object) -> None:
        self._progress.text, self._progress.done, self._progress.total = "", 0, 0
        self._acting.release()


def followed_in_words(carried: Carried, num_frames: int) -> str:
    """How far a region was followed: half a sentence."""
    text = f" and in {len(carried.layers)} of {num_frames} frames"
    reasons = [reason for reason in carried.lost if reason]
    return f"{text} (it {' and '.join(reasons)}; click again beyond)" if reasons else text


def edit_in_words(edit: Edit) -> str:
    """What an edit marks, and where."""
    frames = f"{len(edit.frames)} frames" if len(edit.frames) > 1 else f"frame {edit.frame + 1}"
    return f"{edit.tool} marked as {'moving' if edit.moving else 'static'} in {frames}"
