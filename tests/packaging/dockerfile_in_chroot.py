"""Carries out the Dockerfile's steps in a folder, where there is no Docker: needs root and a Debian base system.

    mmdebstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-dev bookworm ROOT
    python tests/packaging/dockerfile_in_chroot.py ROOT [--extras cuda] [--check]

COPY copies, RUN, CMD and ENV do what they do in a build: as the user, in the folder and with the environment that the
lines above them set. What the base image `python` brings (`pip` and `python` on PATH) is made from Debian's Python.
Prints each step with its seconds; exit code 1 at the first that fails.

    --extras    install these extras in place of the Dockerfile's, to leave out heavy parts
    --check     run tests/try_installation.py as the image's user afterwards
Not collected by pytest; docs/install.md has what it gave.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
BASE = "python3 -m venv /usr/local && ln -sf python3 /usr/local/bin/python"
"""Makes of Debian's Python what the image `python:3.11` has."""

PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass
class State:
    """What the lines so far have set."""

    root: Path
    user: str = "0"
    folder: str = "/"
    environment: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
    )


def instructions(text: str) -> list[tuple[str, str]]:
    """Name and arguments of each instruction, comments and continued lines resolved."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines()) if name]


def run(state: State, command: str) -> None:
    """Run a line of shell in the folder, as the user."""
    owner = ["--userspec", f"{state.user}:{state.user}"] if state.user != "0" else []
    inside = f"cd {shlex.quote(state.folder)} && {command}"
    home = {"HOME": "/root" if state.user == "0" else "/home/das3r"}
    # How packages are reached is the machine's affair: proxies, certificates.
    ways = {k: v for k, v in os.environ.items() if re.search(r"proxy|CERT|CA_BUNDLE|^PIP_", k, re.IGNORECASE)}
    done = subprocess.run(
        ["chroot", *owner, str(state.root), "/bin/sh", "-ec", inside], env={**ways, **home, **state.environment}
    )
    if done.returncode:
        sys.exit(f"ended with exit code {done.returncode}: {command}")


def copy(state: State, sources: list[str], target: str) -> None:
    """COPY: of several sources or into a folder."""
    place = state.root / target.lstrip("/")
    for source in sources:
        path = REPOSITORY / source
        if path.is_dir():
            shutil.copytree(path, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def carry_out(state: State, name: str, rest: str, extras: str | None) -> None:
    """One instruction.

    Raises:
        SystemExit: it failed, or is not one that this file knows.
    """
    if name == "RUN":
        run(state, rest if extras is None else re.sub(r"/src\[[a-z0-9,]+\]", f"/src[{extras}]", rest))
    elif name == "COPY":
        *sources, target = rest.split()
        copy(state, sources, target)
    elif name == "ENV":
        for word in shlex.split(rest):
            key, _, value = word.partition("=")
            state.environment[key] = value
    elif name == "USER":
        state.user = rest
    elif name == "WORKDIR":
        state.folder = rest
    elif name == "CMD":
        run(state, shlex.join(json.loads(rest)))
    elif name not in ("FROM", "EXPOSE", "VOLUME"):
        sys.exit(f"{name} is not an instruction that this file knows.")


def main() -> None:
    """Carry out every line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--extras")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    state = State(arguments.root)
    for name, rest in [
        ("RUN", BASE),
        *instructions((REPOSITORY / "Dockerfile").read_text(encoding="utf-8")),
    ]:
        start = time.perf_counter()
        carry_out(state, name, rest, arguments.extras)
        print(f"{time.perf_counter() - start:6.1f} s  {name} {rest[:100]}", flush=True)
    if arguments.check:
        shutil.copy(REPOSITORY / "tests" / "try_installation.py", arguments.root / "home" / "das3r")
        run(state, "python /home/das3r/try_installation.py")


if __name__ == "__main__":
    main()
