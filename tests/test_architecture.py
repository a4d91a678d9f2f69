"""The house itself: imports point upwards, ruff and mypy are content, torch stays out of the quick commands."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "runner"

GROUND = ["errors", "files", "lazy", "part", "project", "version", "machine"]
ROWS = [
    GROUND,
    ["tasks"],
    ["registry"],
    ["parts"],
    ["specs"],
    ["training"],
    ["plan"],
    ["worker"],
    ["results"],
    ["inference"],
    ["build"],
    ["api"],
    ["cli"],
]
"""The packages, and the modules that all stand on; a package imports only from rows above its own."""
FORBIDDEN = {("worker", "plan"), ("training", "worker"), ("results", "build")}


def room(path: Path) -> str:
    """Name the package of a file, or the module that stands at the top."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def row(name: str) -> int:
    return next(number for number, rooms in enumerate(ROWS) if name in rooms)


def is_for_types(node: ast.AST) -> bool:
    """Tell whether a statement is only read by type checkers."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(path: Path) -> set[str]:
    """Packages that a file imports, wherever the import stands."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    package = parts[:-1]
    found = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        if any(node in ast.walk(guarded) for guarded in ast.walk(tree) if is_for_types(guarded)):
            continue
        base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        base = [part for part in base if part]
        found |= {base[1]} if len(base) > 1 else {alias.name for alias in node.names}
    return found & {name for rooms in ROWS for name in rooms}


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    mine = room(path)
    below = {other for other in imported(path) - {mine} if row(other) > row(mine) or (mine, other) in FORBIDDEN}
    assert not below, f"{mine} imports {below}, which stand below it"


def test_every_room_exists() -> None:
    assert {room(p) for p in FILES} == {name for rooms in ROWS for name in rooms}


def test_ruff() -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "."], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_mypy() -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "runner"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_reading_specs_and_tables_does_not_import_torch() -> None:
    code = ("import sys; from pathlib import Path; from runner.build import build; project = Path('.').resolve(); "
            "from runner.cli.views import events; from runner.plan import planner; from runner.results import table; "
            "planner.make_plan(project, [Path('specs/ensemble7.toml')], 'demo'); print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
