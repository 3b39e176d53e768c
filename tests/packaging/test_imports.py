"""Every name that is imported from the package is there: neither the linter nor the type checker looks, and a module
that is imported when it is needed shows a wrong name to its user first."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def defined(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
    return found


def is_there(module: str, name: str) -> bool:
    path = ROOT / module.replace(".", "/")
    if path.with_suffix(".py").is_file():
        return name in defined(path.with_suffix(".py"))
    face = path / "__init__.py"
    if not face.is_file():
        return False
    return (path / f"{name}.py").is_file() or (path / name / "__init__.py").is_file() or name in defined(face)


def missing(folder: Path) -> list[str]:
    return [
        f"{path.relative_to(folder)}:{node.lineno}: {node.module} has no {alias.name}"
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "das3r_ns"
        for alias in node.names
        if not is_there(node.module, alias.name)
    ]


def test_what_is_imported_from_the_package_is_there():
    assert [line for name in ("das3r_ns", "tests", "benchmarks", "docs") for line in missing(ROOT / name)] == []


def test_a_name_that_is_not_there_is_found(tmp_path):
    (tmp_path / "late.py").write_text(
        "def f():\n    from das3r_ns.predictor.flow.dis import DisFlow, Gone\n    import das3r_ns\n", encoding="utf-8"
    )
    assert missing(tmp_path) == ["late.py:2: das3r_ns.predictor.flow.dis has no Gone"]
