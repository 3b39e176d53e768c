"""Try every case of the corpus, each in a fork of this process, and write down what became of it.

    python tests/hostile/attempt.py RESULTS.json [beginning of names]

A case has ten seconds and two GiB beside what this process holds. Python tells of every file that is opened and every
program or connection that is started: nothing beside the input, the libraries and the system's own files may be.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import site
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import foreign  # noqa: F401  (adds to the corpus)
import masks_edits_batches  # noqa: F401
import psutil
import torch
from corpus import CASES, TESTS, Case

from das3r_ns.runtime.failures import is_foreseen

MAX_SECONDS = 10.0
MAX_BYTES = 2 << 30
SYSTEM = ("/proc/", "/sys/", "/dev/null", "/dev/urandom", "/etc/localtime", "/usr/share/", "/usr/lib", "/lib")
STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect", "pty.spawn")


def outside(folder: Path, seen: list[str]) -> Any:
    """A hook that notes what is opened, started or removed beside the folder and what Python itself reads."""
    own = (
        str(folder),
        str(TESTS.parent / "das3r_ns"),
        str(TESTS),
        *site.getsitepackages(),
        sys.prefix,
        sys.base_prefix,
    )

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in STARTS:
            seen.append(f"{event} {arguments[:1]}")
        elif event in ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree"):
            path = arguments[0]
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if isinstance(path, (str, Path)):
                place = os.path.abspath(path)
                if not place.startswith((*own, *SYSTEM)):
                    seen.append(f"{event} {place}")

    return hook


def attempt(case: Case, folder: Path, results: int) -> None:
    """In the fork: read the input, tell what it said."""
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    read = case.prepare(folder)
    seen: list[str] = []
    sys.addaudithook(outside(folder, seen))
    start = time.perf_counter()
    said, foreseen = "", None
    try:
        read()
    except BaseException as error:
        said, foreseen = f"{type(error).__name__}: {error}", is_foreseen(error)
    told = {"said": said, "foreseen": foreseen, "seconds": time.perf_counter() - start, "outside": seen}
    os.write(results, json.dumps(told).encode())


def in_a_fork(case: Case, folder: Path) -> dict[str, Any]:
    before = psutil.Process().memory_info().rss
    read_end, write_end = os.pipe()
    process = os.fork()
    if not process:
        code = 1
        try:
            log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            attempt(case, folder, write_end)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(code)
    os.close(write_end)
    end = time.monotonic() + 3 * MAX_SECONDS  # what is written, and a busy machine, beside the reading
    while True:
        done, status, used = os.wait4(process, os.WNOHANG)
        if done:
            break
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.003)
    with os.fdopen(read_end, "rb") as pipe:
        told = json.loads(pipe.read() or b"{}")
    result = {"said": "", "foreseen": None, "seconds": None, "outside": [], **told}
    result["status"] = os.waitstatus_to_exitcode(status)
    result["bytes"] = used.ru_maxrss * 1024 - before
    result["executed"] = [str(p) for p in (folder / "executed", folder.parent / "executed") if p.exists()]
    if result["status"]:
        result["log"] = (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-1500:]
    return result


def main(path: Path, names: str) -> None:
    torch.set_num_threads(1)
    results = {}
    for name, case in CASES.items():
        if name.startswith(names):
            # Gone after each: together they are gigabytes.
            with tempfile.TemporaryDirectory(prefix="hostile-", ignore_cleanup_errors=True) as place:
                folder = Path(place) / "given"
                folder.mkdir()
                results[name] = in_a_fork(case, folder)
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
