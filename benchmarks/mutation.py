"""Which changes of the code would no test notice: random mutants, each met by the tests that run the changed line.

    pip install cosmic-ray pytest-cov
    python benchmarks/mutation.py                                      # 400 mutants of four rooms; hours on 2 cores
    python benchmarks/mutation.py --count 30 --rooms scene --jobs 2    # minutes
    python benchmarks/mutation.py --again build/mutation/mutants.jsonl # the unnoticed ones of an earlier run once more

Mutants are those of cosmic-ray's operators, each as likely as any other; what only changes an annotation is left out
(pyright reads those). First the tests run once with coverage, which says for every line the tests that run it; a
mutant then meets those tests alone, of its own room first, until one fails. A line that runs when its module is
imported is met by the tests of that module; compiled loops, which coverage does not see, by those of the modules that
call them. Every mutant runs in a fork of a process that has imported the libraries and nothing of ours, so that it
costs a second or two beside its tests. No file is changed: the mutated source is given to the import. At the end the
tests that noticed something run without any mutant: what one that fails there noticed is tried again without it.

Output: one line a mutant in `mutants.jsonl` (what was changed, tests, outcome), and the unnoticed ones at the end.
"""

from __future__ import annotations

import ast
import difflib
import importlib.machinery
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tyro

PACKAGE = Path("das3r_ns")
TIMES = "mutation_times.json"
MAX_TEST_FILES = 4
"""That a mutant meets without coverage."""
CONTROL = "none"
"""Operator of a mutant that is the code itself."""
MEMORY_BYTES = 8 << 30
"""Of data of one mutant's process: one that asks for a terabyte fails like any other."""
LIBRARIES = (
    "numpy", "scipy.optimize", "scipy.ndimage", "scipy.sparse.linalg", "scipy.spatial", "cv2", "numba", "torch",
    "torchvision", "pycolmap", "plyfile", "PIL.Image", "safetensors.torch", "matplotlib.pyplot", "hypothesis", "tyro",
    "nerfstudio.models.splatfacto", "nerfstudio.engine.trainer", "nerfstudio.data.dataparsers.base_dataparser",
)  # fmt: skip


@dataclass
class Options:
    """What to mutate, and with how much patience."""

    count: int = 400
    """Mutants to draw."""
    seed: int = 0
    """Of the draw."""
    rooms: tuple[str, ...] = ("predictor", "model", "dataparser", "scene")
    """Folders of the package that are mutated."""
    tests: tuple[str, ...] = ("tests",)
    """Files and folders of the tests that may notice."""
    marks: str = "not slow and not gpu"
    """Of the tests (pytest -m)."""
    jobs: int = max(1, os.cpu_count() or 1)
    """Processes at a time."""
    budget_s: float = 60.0
    """Seconds of tests that a mutant meets at the most, by what they took without it."""
    seconds: float = 0.0
    """Stop starting mutants after so long, coverage included; 0 is never."""
    out: Path = Path("build/mutation")
    """Folder of what is found. Coverage that lies there from an earlier run of the same tests is used again."""
    by_imports: bool = False
    """Do without coverage: a mutant meets the test files that import its module, nearest first. Quicker to begin with
    where a run of all tests takes an hour, and less sure: a line may be noticed by tests that import it by way of
    others."""
    again: Path | None = None
    """A mutants.jsonl: try its unnoticed mutants again instead of drawing new ones."""


@dataclass
class Mutant:
    """One change of one file."""

    file: str
    line: int
    last_line: int
    operator: str
    diff: str
    source: str = field(repr=False)
    outcome: str = ""
    """noticed, unnoticed, not run (no test runs the line), or over time, which is noticed as well."""
    seconds: float = 0.0
    tests: list[str] = field(default_factory=list)
    """That it met."""
    log: list[str] = field(default_factory=list)
    """Tests that failed, or the last words."""


def draw(options: Options) -> list[Mutant]:
    """Mutants, each of the tool's equally likely."""
    import parso.python.tree  # noqa: F401  (cosmic-ray imports a part of it first, and fails)
    from cosmic_ray import plugins
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    operators = {name: plugins.get_operator(name) for name in sorted(plugins.operator_names())}
    operators = {name: kind() for name, kind in operators.items() if not kind.arguments()}
    files = sorted(path for room in options.rooms for path in (PACKAGE / room).rglob("*.py"))
    places: list[tuple[Path, str, int, tuple[int, int], tuple[int, int]]] = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        nodes, annotations = list(ast_nodes(get_ast(text))), list(_annotations(text))
        for name, operator in operators.items():
            found = [span for node in nodes for span in operator.mutation_positions(node)]
            for occurrence, (start, end) in enumerate(found):
                if not any(a <= start and end <= b for a, b in annotations):
                    places.append((path, name, occurrence, start, end))
    print(f"{len(places)} mutants of {len(files)} files; {min(options.count, len(places))} are drawn", flush=True)
    random.Random(options.seed).shuffle(places)
    mutants = []
    for path, name, occurrence, start, end in places:
        if len(mutants) == options.count:
            break
        text = path.read_text(encoding="utf-8")
        changed = mutate_code(text, operators[name], occurrence)
        if changed is None or _dump(changed) in ("", _dump(text)):
            continue  # nothing of the code is changed, or it is none any more (`**a` as a product of two)
        lines = difflib.unified_diff(text.splitlines(), changed.splitlines(), lineterm="", n=0)
        diff = "\n".join(line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---"))
        mutants.append(Mutant(str(path), start[0], end[0], name.split("/")[1], diff, changed))
    return mutants


def _dump(text: str) -> str:
    try:
        return ast.dump(ast.parse(text))
    except SyntaxError:
        return ""


def _annotations(text: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    for node in ast.walk(ast.parse(text)):
        for name in ("annotation", "returns"):
            part = getattr(node, name, None)
            if isinstance(part, ast.expr):
                yield (part.lineno, part.col_offset), (part.end_lineno or 0, part.end_col_offset or 0)


def pytest_runtest_logreport(report: Any) -> None:
    """Hook: how long each test took with its fixtures, and whether it passed."""
    entry = _TIMES.setdefault(report.nodeid, {"seconds": 0.0, "passed": True})
    entry["seconds"] += report.duration
    entry["passed"] &= report.passed


def pytest_sessionfinish() -> None:
    """Hook: write them, in the process that hears of all."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        Path(os.environ["MUTATION_TIMES"]).write_text(json.dumps(_TIMES), encoding="utf-8")


_TIMES: dict[str, dict[str, Any]] = {}


def measure(options: Options) -> None:
    """Run the tests once: which lines each runs, and how long it takes."""
    folder = options.out.absolute()
    if (folder / ".coverage").exists() and (folder / TIMES).exists():
        print(f"Coverage of an earlier run in {folder} is used", flush=True)
        return
    settings = {
        **os.environ, "COVERAGE_FILE": str(folder / ".coverage"), "MUTATION_TIMES": str(folder / TIMES),
        "NUMBA_CACHE_DIR": str(folder / "numba"), "PYTHONPATH": os.pathsep.join([*_import_paths()]),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "mutation", "-m", options.marks,
        "-n", str(options.jobs), "--dist", "worksteal", f"--cov={PACKAGE}", "--cov-context=test", "--cov-report=",
        "--continue-on-collection-errors", *options.tests,
    ]  # fmt: skip
    subprocess.run(command, env=settings, check=False)


def _import_paths() -> list[str]:
    rest = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return [str(Path.cwd()), str(Path(__file__).parent), *rest]


class Chooser:
    """Finds the tests of a line."""

    def __init__(self, options: Options) -> None:
        from coverage import CoverageData

        times = json.loads((options.out / TIMES).read_text(encoding="utf-8"))
        self.seconds = {test: entry["seconds"] for test, entry in times.items() if entry["passed"]}
        self.order = {test: i for i, test in enumerate(times)}
        data = CoverageData(str(options.out / ".coverage"))
        data.read()
        self.lines: dict[str, dict[int, set[str]]] = {}
        for path in data.measured_files():
            name = os.path.relpath(path)
            self.lines[name] = {
                line: {test for context in contexts for test in self._tests(context)}
                for line, contexts in data.contexts_by_lineno(path).items()
            }
        self.imports = {str(path): set(_imported(path)) for path in PACKAGE.rglob("*.py")}
        self.compiled = _compiled(self.imports)
        self.budget_s = options.budget_s

    def _tests(self, context: str) -> list[str]:
        test, _, phase = context.rpartition("|")
        if phase != "setup":
            return [test] if test in self.seconds else []
        # What a fixture of the module runs is seen by the first test only, and matters to all of the file.
        start = test.split("::")[0] + "::"
        return [other for other in self.seconds if other.startswith(start)]

    def tests(self, mutant: Mutant) -> list[str]:
        """Names of tests, of a file together, cheapest and nearest files first, up to the budget."""
        lines = self.lines.get(mutant.file, {})
        found = set().union(*(lines.get(n, set()) for n in range(mutant.line, mutant.last_line + 1)))
        if not found and self._runs_on_import_or_compiled(mutant):
            found = set().union(*lines.values()) if lines else set()
            for caller in self._callers(mutant.file):
                found |= set().union(*self.lines.get(caller, {}).values())
        stem, room = Path(mutant.file).stem, Path(mutant.file).parts[1:-1]
        files: dict[str, list[str]] = defaultdict(list)
        for test in found:
            files[test.split("::")[0]].append(test)

        def cost(name: str) -> float:
            total = sum(self.seconds[test] for test in files[name])
            parts = Path(name).parts[1:-1]
            near = sum(a == b for a, b in zip(room, parts)) / max(1, len(room))
            return total * (0.02 if stem in Path(name).stem else 1) * (1 - 0.9 * near)

        chosen: list[str] = []
        spent = 0.0
        for name in sorted(files, key=cost):
            for test in sorted(files[name], key=self.order.__getitem__):
                if chosen and spent + self.seconds[test] > self.budget_s:
                    continue
                chosen.append(test)
                spent += self.seconds[test]
        return chosen

    def _runs_on_import_or_compiled(self, mutant: Mutant) -> bool:
        if mutant.file in self.compiled:
            return True
        return mutant.line in self.lines.get(mutant.file, {})  # it ran, and in no test: while something was imported

    def _callers(self, name: str) -> set[str]:
        callers, new = set(), {name}
        while new:
            new = {other for other, used in self.imports.items() if used & new} - callers
            callers |= new
            new &= self.compiled
        return callers

    def stale(self, name: str) -> set[str]:
        """Modules whose compiled code a change of `name` makes wrong."""
        return _stale(name, self.imports, self.compiled)


def _compiled(names: Iterable[str]) -> set[str]:
    """Files with loops that Numba compiles."""
    marks = ("@compiled", "@kernel", "njit")
    return {name for name in names if any(mark in Path(name).read_text(encoding="utf-8") for mark in marks)}


def _stale(name: str, imports: dict[str, set[str]], compiled: set[str]) -> set[str]:
    found = {name} & compiled
    new = {name}
    while new:
        new = {other for other in compiled if imports[other] & new} - found
        found |= new
    return {Path(other).stem for other in found}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
            base = Path(*(node.module or "").split("."))
            yield str(base.with_suffix(".py"))
            yield from (str(base / f"{alias.name}.py") for alias in node.names)


def start(mutant: Mutant, number: int, options: Options, stale: set[str]) -> int:
    """Run its tests in a fork; returns the process's number."""
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        work = options.out.absolute() / "work" / str(number)
        work.mkdir(parents=True)
        log = os.open(work / "log.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["TMPDIR"] = str(work)
        import numba
        import pytest

        cache = options.out.absolute() / "numba"
        if stale:
            shutil.copytree(
                cache, work / "numba", ignore=lambda _, names: [n for n in names if n.split(".")[0] in stale]
            )
            cache = work / "numba"
        numba.config.CACHE_DIR = str(cache)
        _import_instead(Path(mutant.file).absolute(), mutant.source)
        first = [] if mutant.operator == CONTROL else ["-x"]
        plain = ["-q", "-m", options.marks, "-p", "no:cacheprovider", f"--basetemp={work / 'tmp'}"]
        code = int(pytest.main([*plain, *first, *mutant.tests]))
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _import_instead(path: Path, source: str) -> None:
    """Let every later import of the file read this source."""
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader
    get_data, path_stats = loader.get_data, loader.path_stats

    def data(self: Any, name: str) -> bytes:
        return source.encode() if Path(name) == path else get_data(self, name)

    def stats(self: Any, name: str) -> Any:
        found = dict(path_stats(self, name))
        return {**found, "mtime": found["mtime"] + 1} if Path(name) == path else found  # no bytecode fits

    loader.get_data, loader.path_stats = data, stats  # type: ignore[method-assign]


class ImportChooser:
    """Finds the test files that import a module, without having run them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seconds: dict[str, float] = defaultdict(lambda: options.budget_s / MAX_TEST_FILES)
        self.imports = {str(path): set(_imported(path)) for path in PACKAGE.rglob("*.py")}
        self.compiled = _compiled(self.imports)
        tests = sorted(path for place in options.tests for path in Path(place).rglob("test_*.py"))
        self.tests_of = {str(path): set(_imported(path)) for path in tests}

    def tests(self, mutant: Mutant) -> list[str]:
        """The files that import it, then those that import what imports it."""
        stem, room = Path(mutant.file).stem, Path(mutant.file).parts[1:-1]

        def far(name: str) -> tuple[bool, bool, int, str]:
            parts = Path(name).parts[1:-1]
            near = sum(a == b for a, b in zip(room, parts))
            return stem not in Path(name).stem, mutant.file not in self.tests_of[name], -near, name

        users = {other for other, used in self.imports.items() if mutant.file in used} | {mutant.file}
        found = [name for name, used in self.tests_of.items() if used & users]
        return sorted(found, key=far)[:MAX_TEST_FILES]

    def stale(self, name: str) -> set[str]:
        """As of `Chooser`."""
        return _stale(name, self.imports, self.compiled)


def control(tried: list[Mutant], chooser: Chooser, options: Options) -> list[Mutant]:
    """The mutants that only a test noticed which fails in such a process without any mutant, to be tried again. Those
    tests are left out from now on."""
    files: dict[str, list[str]] = defaultdict(list)
    for test in sorted({test for mutant in tried if mutant.outcome == "noticed" for test in _names(mutant)}):
        files[test.split("::")[0]].append(test)
    first = next(iter(chooser.imports))
    text = Path(first).read_text(encoding="utf-8")
    whole = [Mutant(first, 1, 1, CONTROL, "", text, tests=tests) for tests in files.values()]
    wrong: set[str] = set()
    for same in run(whole, chooser, options, float("inf")):
        if same.outcome != "unnoticed":
            wrong |= set(_names(same)) or set(same.tests)
    for test in sorted(wrong):
        chooser.seconds.pop(test, None)
        print(f"{test} fails without a mutant and is left out", flush=True)
    for tests in chooser.lines.values():
        for line in tests.values():
            line -= wrong
    return [m for m in tried if m.outcome == "noticed" and (not _names(m) or set(_names(m)) <= wrong)] if wrong else []


def _names(mutant: Mutant) -> list[str]:
    """Of the tests that failed."""
    return [line.split(" ")[1] for line in mutant.log if line.startswith(("FAILED", "ERROR")) and "::" in line]


def run(mutants: list[Mutant], chooser: Chooser | ImportChooser, options: Options, end: float) -> Iterator[Mutant]:
    """Meet every mutant with its tests, `jobs` at a time; those that were tried, as they come."""
    shutil.rmtree(options.out / "work", ignore_errors=True)
    waiting, running = list(enumerate(mutants)), {}
    while waiting or running:
        while waiting and len(running) < options.jobs and time.monotonic() < end:
            number, mutant = waiting.pop(0)
            mutant.tests = mutant.tests or chooser.tests(mutant)
            if not mutant.tests:
                mutant.outcome = "not run"
                yield mutant
                continue
            stale = chooser.stale(mutant.file)
            limit = 30 + 5 * sum(map(chooser.seconds.__getitem__, mutant.tests)) + (180 if stale else 0)
            running[start(mutant, number, options, stale)] = (mutant, number, time.monotonic(), limit)
        if not running:
            break
        time.sleep(0.02)
        for process, (mutant, number, begin, limit) in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if not done and time.monotonic() - begin < limit:
                continue
            if not done:
                os.killpg(process, signal.SIGKILL)
                os.waitpid(process, 0)
            code = os.waitstatus_to_exitcode(status) if done else None
            mutant.seconds = round(time.monotonic() - begin, 2)
            mutant.outcome = "over time" if code is None else "unnoticed" if code == 0 else "noticed"
            if code in (5, 99):  # pytest found no test, or never ran
                mutant.outcome = "error"
            log = options.out / "work" / str(number)
            mutant.log = _failed(log / "log.txt")
            if mutant.outcome != "error":
                shutil.rmtree(log, ignore_errors=True)
            del running[process]
            yield mutant


def _failed(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))] or lines[-3:]


def _write(tried: list[Mutant], options: Options) -> None:
    lines = "".join(json.dumps(asdict(mutant)) + "\n" for mutant in tried)
    (options.out / "mutants.jsonl").write_text(lines, encoding="utf-8")


def main(options: Options) -> None:
    begin = time.monotonic()
    end = begin + options.seconds if options.seconds else float("inf")
    options.out.mkdir(parents=True, exist_ok=True)
    if options.again is None:
        mutants = draw(options)
    else:
        lines = options.again.read_text(encoding="utf-8").splitlines()
        mutants = [Mutant(**{**entry, "tests": []}) for entry in map(json.loads, lines)]
        mutants = [mutant for mutant in mutants if mutant.outcome not in ("noticed", "over time")]
    if not options.by_imports:
        measure(options)
        print(f"Coverage is ready after {time.monotonic() - begin:.0f} s", flush=True)
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(_import_paths()))
    sys.path[:0] = _import_paths()
    chooser = ImportChooser(options) if options.by_imports else Chooser(options)
    for name in LIBRARIES:
        try:
            __import__(name)
        except ImportError as error:
            print(f"{name} is not here ({error})", flush=True)
    for name in [name for name in sys.modules if name.split(".")[0] in (PACKAGE.name, "nerfstudio")]:
        del sys.modules[name]  # nerfstudio imports its plug-ins, and what is mutated has to be imported anew
    tried: list[Mutant] = []
    waiting, again = mutants, True
    while again:
        for mutant in run(waiting, chooser, options, end):
            tried.append(mutant)
            _write(tried, options)
            print(
                f"{len(tried)}/{len(mutants)} {mutant.outcome} {mutant.seconds:.0f} s {mutant.file}:{mutant.line}",
                flush=True,
            )
        waiting = control(tried, chooser, options) if isinstance(chooser, Chooser) else []
        again = bool(waiting)
        tried = [mutant for mutant in tried if mutant not in waiting]
        for mutant in waiting:
            mutant.tests, mutant.log = [], []
    _write(tried, options)
    missed = [mutant for mutant in tried if mutant.outcome not in ("noticed", "over time")]
    for mutant in sorted(missed, key=lambda m: (m.file, m.line)):
        print(f"\n{mutant.outcome}: {mutant.file}:{mutant.line} {mutant.operator}\n{mutant.diff}")
    print(f"\n{len(tried) - len(missed)} of {len(tried)} mutants noticed")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
