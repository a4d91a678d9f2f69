"""Architecture: imports point upwards and in no circle, as docs/design.md says; quick commands import no torch."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "runner"

PAGE = (ROOT / "docs" / "design.md").read_text()
TABLE = [line.split("|")[1:-1] for line in PAGE.partition("## 2. Packages")[2].partition("\n###")[0].splitlines()
         if line.startswith("| `")]
ROWS = [re.findall(r"`(\w+)`", row[0]) for row in TABLE]
"""The packages of each row of the table; one imports only from rows above its own."""
FORBIDDEN = {(row[0].strip(" `"), other) for row in TABLE for other in re.findall(r"`(\w+)`", row[3])}


def package_of(path: Path) -> str:
    """Return the package of a file, or the module at the top."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def row(name: str) -> int:
    return next(number for number, names in enumerate(ROWS) if name in names)


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
    return found & {name for names in ROWS for name in names}


def modules_imported(path: Path) -> set[str]:
    """Return the modules of mtrun that a file imports from, by their dotted names."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts[:-1]
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                found.add(f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base)
    packages = {".".join(name.split(".")[:2]) for name in found} - {".".join(parts[:2])}  # their `__init__` runs first
    return (found | packages) & MODULES.keys()


MODULES = {".".join(p.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): p
           for p in PACKAGE.rglob("*.py")}
FILES = sorted(p for p in PACKAGE.rglob("*.py") if p not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    mine = package_of(path)
    below = {other for other in imported(path) - {mine} if row(other) > row(mine) or (mine, other) in FORBIDDEN}
    assert not below, f"{mine} imports {below}, which stand below it"


def test_the_table_has_every_package_once() -> None:
    names = [name for row in ROWS for name in row]
    assert len(ROWS) == 13 and len(set(names)) == len(names)
    assert {package_of(p) for p in FILES} == set(names)
    assert {("worker", "plan")} == FORBIDDEN


@pytest.mark.parametrize("row", [row for row in TABLE if "modules)" not in row[2] and row[2].strip()],
                         ids=lambda row: row[0].strip())
def test_a_package_exposes_what_the_table_says(row: list[str]) -> None:
    package = importlib.import_module(f"runner.{row[0].strip().strip('`')}")
    named = {name for names in re.findall(r"`([^`]+)`", row[2]) for name in names.split() if name != "tasks"}
    exposed = {name for name, value in vars(package).items() if not name.startswith("_")
               and not isinstance(value, ModuleType) and name != "annotations"}
    assert named <= exposed
    if "all of" not in row[2] and row[0].strip() != "`cli`":
        assert exposed == named


def test_no_modules_import_each_other() -> None:
    """Circles are looked for among all imports, those for type checkers and those inside functions too."""
    graph = {name: modules_imported(path) for name, path in MODULES.items()}
    left = dict(graph)
    while ready := [name for name, others in left.items() if not others & left.keys() - {name}]:
        for name in ready:
            del left[name]
    assert not left, f"these import each other: {sorted(left)}"


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
