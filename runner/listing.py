"""Runs as text and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .registry import Run


def runs_json(runs: Sequence[Run]) -> str:
    """Return runs as JSON, one a line."""
    return "\n".join(json.dumps({"v": 1, "id": run.id, "name": run.manifest["name"], **_facts(run)}) for run in runs)


def runs_text(runs: Sequence[Run]) -> str:
    """Return runs as a table."""
    from tabulate import tabulate

    rows = [[run.id, run.manifest["name"], *_facts(run).values()] for run in runs]
    return tabulate(rows, ["id", "name", "overall", "epoch", "parameters", "seconds", "MB"],
                    floatfmt=("", "", ".3f", "d", ",", ".1f", ".1f")) if rows else "no runs yet"


def _facts(run: Run) -> dict[str, float | None]:
    """Return what a list shows of a run."""
    manifest = run.manifest
    size = sum(entry["size"] for entry in manifest["files"].values())
    return {"overall": manifest["dev"]["overall"], "epoch": manifest["epoch"], "parameters": manifest["parameters"],
            "seconds": manifest["seconds"], "megabytes": round(size / 1e6, 3)}
