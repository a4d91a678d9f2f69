"""The house itself: imports point upwards, ruff and mypy are content, torch stays out of the quick commands."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "runner"

ROWS = [
    ["errors"],
    ["files", "syntax", "events", "devices"],
    ["toml", "leases", "archives", "machine", "manifests"],
    ["parts", "overlays"],
    ["diagnosis", "sweeps", "suites"],
    ["assembly", "references", "contents"],
    ["executables"],
    ["blends", "losses", "predictions", "resampling", "encoders", "combiners", "optimizers", "schedules",
     "regularizers"],
    ["scores", "scorefiles", "heads"],
    ["ensembles"],
    ["spec", "registry", "results"],
    ["consistency", "differences", "provenance", "reservations", "crossfit", "significance", "executors"],
    ["orders"],
    ["models", "lineage"],
    ["loader", "schema", "attempts"],
    ["plan", "engines", "launches", "deliveries"],
    ["result_folder", "replan"],
    ["forecast", "renewal", "retention", "publication", "result_cache", "coalitions", "outcomes", "questions"],
    ["likeness", "records", "housekeeping"],
    ["worth", "answers", "submission"],
    ["checkpoints", "tokens", "layout", "memory", "snapshots", "tracking"],
    ["products"],
    ["operations"],
    ["layers"],
    ["suites.*", "losses.*", "heads.*", "encoders.*", "combiners.*", "optimizers.*", "schedules.*", "ensembles.*",
     "regularizers.*"],
    ["batches", "distillation"],
    ["conflict", "masking", "ranks", "words"],
    ["network", "crews"],
    ["evaluate"],
    ["train", "teaching", "inference", "starting"],
    ["souping", "supervision"],
    ["worker", "interchange"],
    ["executors.*"],
    ["pool"],
    ["build"],
    ["bundles"],
    ["intake"],
    ["tables", "listing", "outline", "comparison", "checked", "console", "reference", "scaffold", "inventory",
     "completion", "appraisal", "mistakes"],
    ["sheets", "dossier"],
    ["formats", "pictures", "report"],
    ["leaderboards", "graphs", "pictures.*"],
    ["options"],
    ["gallery", "upkeep", "usage", "notebook"],
    ["cli"],
]
"""The rooms from the first row to the last; a family's base is a room of its own, above the files of the family."""


def room(path: Path) -> str:
    """Name the room of a file: `heads` for heads/__init__.py, `heads.*` for the other files of the folder."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) == 1:
        return parts[0]
    return parts[0] if parts[1] == "__init__" else f"{parts[0]}.*"


def row(name: str) -> int:
    return next(number for number, rooms in enumerate(ROWS) if name in rooms)


def imported(path: Path) -> set[str]:
    """Rooms that a file imports, wherever the import stands."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    parts = parts if parts[-1] != "__init__" else parts[:-1]
    package = parts if path.name == "__init__.py" else parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
        for alias in node.names:
            above = PACKAGE.parent.joinpath(*filter(None, base))
            for target in (above / alias.name, above):
                file = target.with_suffix(".py") if target.with_suffix(".py").is_file() else target / "__init__.py"
                if file.is_file() and file != PACKAGE / "__init__.py":
                    found.add(room(file))
                    break
    return found


FILES = sorted(p for p in PACKAGE.rglob("*.py") if p not in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_upwards(path: Path) -> None:
    mine = room(path)
    below = {other for other in imported(path) if row(other) >= row(mine)}
    assert not below, f"{mine} imports {below}, which stand beside or below it"


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
    code = ("import sys; from pathlib import Path; from runner import build, console, listing, plan, tables; "
            "plan.make(Path('.').resolve(), [Path('specs/ensemble7.toml')], 'demo'); print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
