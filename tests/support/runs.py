"""Finished runs written by hand: manifests as a worker would leave them, without training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.part import plain_dump
from runner.parts.discovery import fingerprints
from runner.plan.plan import Plan, PlannedNode
from runner.plan.planner import make_plan
from runner.registry.manifest import json_with_checksum
from runner.registry.registry import FORMAT, MANIFEST, Registry, Run
from runner.specs.spec import Leaf

DEVICE = f"cpu ({os.uname().machine})"
DEV = {"overall": 0.5, "sentiment": 0.4, "paraphrase": 0.6, "similarity": 0.0}


def planned(root: Path, *specs: str, settings: Sequence[str] = ()) -> Plan:
    """Plan `specs/NAME.toml` of a project."""
    return make_plan(root, [root / "specs" / f"{spec}.toml" for spec in specs], "demo", settings)


def leaf(plan: Plan, name: str) -> PlannedNode:
    return next(node for node in plan.nodes.values() if node.name == name)


def finish(root: Path, spec: str, settings: Sequence[str] = (), **changes: Any) -> Run:
    """Write the run of a model, or of the only model in a file; `changes` are laid over its manifest."""
    plan = planned(root, spec, settings=settings)
    return finished(plan, next(iter(plan.nodes.values())), changes)


def finished(plan: Plan, node: PlannedNode, changes: Mapping[str, Any]) -> Run:
    """Write the run of one leaf of a plan."""
    assert isinstance(node.spec, Leaf)
    model = node.spec.model
    manifest = {
        "format": FORMAT, "id": node.id, "name": node.name, "what": node.what, "spec": plain_dump(model),
        "suite": {"sha256": node.suite, "dropped": {}}, "inputs": model.inputs(plan.project),
        "source": fingerprints(model), "epoch": 2, "parameters": 12345, "seconds": 20.0, "dev": DEV,
        "environment": {"mtrun": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "device": DEVICE, "threads": 1},
        "files": {"model.safetensors": {"size": 3000, "sha256": "0" * 64}},
    }
    folder = plan.registry.root / node.id
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(3000))
    (folder / MANIFEST).write_bytes(json_with_checksum(manifest | changes))
    run = Registry(plan.registry.root).find(node.id)
    assert run
    return run
