"""Kill `das3r batch` in the middle of its clips, repeat it, and see that nothing is lost and nothing done twice.

    python tests/soak/killed_batch.py                 # six tiny videos, two at a time, killed once, a table at the end
    python tests/soak/killed_batch.py --cluster local # by submitit's processes on this machine (extra `cluster`)

Clips are predicted, trained, rendered and exported as always, with few steps. The command and, as a machine that goes
down would, all its workers get SIGKILL once a third of the stages is done. What a finished stage left must be the same
file afterwards, byte and time; every row must be whole at the end; and nothing half written may lie about.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from das3r_ns.evaluation.batch.worker import STAGES
from das3r_ns.synthetic import SyntheticConfig, make_clip, write_video

SHARE_AT_KILL = 0.33
"""Of all stages that are done when everything is killed."""
POLL_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=2, help="clips at a time")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--cluster", default="none", choices=("none", "local"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="das3r-batch-") as place:
        folder, out = Path(place) / "clips", Path(place) / "out"
        folder.mkdir()
        for seed in range(given.clips):
            config = SyntheticConfig(num_frames=given.frames, height=108, width=192, seed=seed, path_share=0.3)
            write_video(make_clip(config).frames, config.fps, folder / f"clip_{seed}.mp4")
        command = [
            *(sys.executable, "-m", "das3r_ns.cli", "batch", str(folder), "--out", str(out)),
            *("--predictor", "geometric", "--geometric.masks.refiner", "none", "--method", "das3r-lite"),
            *("--steps", str(given.steps), "--jobs", str(given.jobs), "--cluster", given.cluster),
        ]
        expected = given.clips * len(STAGES)
        begin = time.perf_counter()
        first = subprocess.Popen(command, start_new_session=True)
        while len(_finished(out)) < SHARE_AT_KILL * expected:
            if first.poll() is not None:
                raise SystemExit(f"the batch ended with {first.returncode} before it could be killed")
            time.sleep(POLL_S)
        killed = _kill(first)
        before = _finished(out)
        print(
            f"killed {killed} processes after {time.perf_counter() - begin:.0f} s, {len(before)} of {expected} "
            "stages done"
        )
        begin = time.perf_counter()
        code = subprocess.run(command, check=False).returncode
        print(f"repeated: exit code {code} after {time.perf_counter() - begin:.0f} s")
        after = _finished(out)
        redone = [name for name, stamp in before.items() if after.get(name) != stamp]
        rows = json.loads((out / "batch.json").read_text(encoding="utf-8"))
        incomplete = [row["clip"] for row in rows if row["error"] or not (row["video"] and row["splat"])]
        left = [str(p.relative_to(out)) for p in out.rglob("*") if p.name == ".lock" or ".part" in p.name]
        print((out / "batch.md").read_text(encoding="utf-8"))
        print(
            f"stages done twice: {redone or 'none'}; rows not whole: {incomplete or 'none'}; "
            f"left over: {left or 'nothing'}"
        )
        if code or redone or incomplete or left or len(after) != expected or len(rows) != given.clips:
            raise SystemExit("NOT as it should be")


def _finished(out: Path) -> dict[str, tuple[int, bytes]]:
    """Results of stages, by clip and stage, with time and content."""
    found = {}
    for path in out.glob("*/results/*.json"):
        try:
            if "values" in json.loads(content := path.read_bytes()):
                found[str(path.relative_to(out))] = (path.stat().st_mtime_ns, content)
        except (OSError, ValueError):
            continue
    return found


def _kill(process: subprocess.Popen[bytes]) -> int:
    """Kill a process and all below it, which the operating system would not do by itself."""
    parent = psutil.Process(process.pid)
    family = [parent, *parent.children(recursive=True)]
    for one in family:
        if one.is_running():
            os.kill(one.pid, signal.SIGKILL)
    process.wait()
    psutil.wait_procs(family, timeout=10)
    return len(family)


if __name__ == "__main__":
    main()
