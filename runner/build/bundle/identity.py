"""Check that the nodes of a bundle are what their ids and names say: builds would reuse forged ones.

An id is the hash of all that decides a node, so it is computed again from a run's manifest, an ensemble's entry or a
predictions file. A name is that of a spec in the bundle, which must say what the node with this name is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DataError, MtrunError, Place, Problem
from ...plan.plan import PlannedNode
from ...project import Project
from ...registry.manifest import parse_manifest
from ...registry.registry import MANIFEST, Registry
from ...specs.identity import content_id, filed_id, tree_id
from ...specs.spec import Filed, Model, Node, SoupModel, Stored, Tree
from ...specs.stored_run import model_of
from ...tasks.data import Data
from ...tasks.prediction_files import read
from ...tasks.predictions import Predictions
from .bundle import PREDICTIONS_LIMIT, Bundle

SHOWN = 3
"""Maximal number of reasons in a message."""


def check_nodes(bundle: Bundle, project: Path) -> None:
    """Raise DataError where a node is not what its id says, or a system not what its spec says."""
    models = {id: _model(bundle, id, project) for id in bundle.record.runs}
    for id in bundle.record.filed:
        scores = Predictions.from_bytes(bundle.read(f"predictions/{id}.safetensors", PREDICTIONS_LIMIT), id)
        if filed_id(scores, bundle.record.suite_of(id)) != id:
            raise _error(bundle, f"the id {id} is not that of its predictions")
    with bundle.unpacked(project) as folder:
        nodes = bundle.record.plan(Registry(Project(folder).registry), bundle.data(), {}, project).nodes
        for node in nodes.values():
            if isinstance(node.spec, Tree) and tree_id(node.spec.ensemble, node.members) != node.id:
                raise _error(bundle, f"the id {node.id} is not that of the ensemble")
        try:
            loader, specs = bundle.loader(folder)
            check = _SpecCheck(bundle.data(), nodes, models, bool(loader.settled))
            for name, id in bundle.record.systems.items():
                if name in specs:
                    check.compare(specs[name], id)
                else:
                    check.wrong.append(f"no spec is called `{name}`")
        except MtrunError as error:
            notes = (note for problem in error.problems for note in (problem.message, *problem.notes))
            raise _error(bundle, "its specs cannot be read", *notes) from None
    check.compare_names(bundle.record.systems)
    if check.wrong:
        raise _error(bundle, "its specs are of other systems than its results", *check.wrong)


def _error(bundle: Bundle, message: str, *notes: str) -> DataError:
    """Return the error for a bundle whose nodes are others than it says."""
    hint = "another version of mtrun made it, or it is forged; `mtrun reproduce` still shows its numbers"
    return DataError(Problem(message, Place(str(bundle.archive.path)), notes[:SHOWN], hint))


def _model(bundle: Bundle, id: str, project: Path) -> Model:
    """Return the model of a run. Raise DataError where the run's id or suite is another."""
    manifest = parse_manifest(bundle.manifest(id))
    at = Place(f"{bundle.archive.path}: registry/{id}/{MANIFEST}")
    model, suite = model_of(manifest["spec"], at, project), manifest["suite"].get("sha256")
    content = {"kind": "model", "spec": model.canonical(), "suite": suite, "inputs": manifest.get("inputs")}
    if content_id(content) != id:
        raise _error(bundle, f"the id {id} is not that of the run's spec")
    if suite != bundle.record.suite_of(id):
        raise _error(bundle, f"the run {id} was trained on another suite")
    return model


@dataclass
class _SpecCheck:
    """Compares the nodes of loaded specs with those of a bundle's record."""

    data: Mapping[str, Data]
    nodes: Mapping[str, PlannedNode]
    models: Mapping[str, Model]
    is_settled: bool
    """Whether a spec leaves its precision to the machine, which may be another here."""
    wrong: list[str] = field(default_factory=list)
    _names: dict[str, set[str]] = field(default_factory=dict)
    """Names that the specs give to each node, by its id."""

    def compare(self, spec: Node, id: str) -> None:
        """Compare a node with the one of an id, and those below it."""
        node = self.nodes[id]
        self._names.setdefault(id, set()).add(node.name if isinstance(spec, Stored) else spec.name)
        if not self._is_same(spec, node):
            self.wrong.append(f"{getattr(spec, 'place', '')}: this is not {node.title} ({id})")
        elif isinstance(spec, Tree):
            for child, member in zip(spec.ensemble.children(), node.members, strict=True):
                self.compare(child, member)

    def _is_same(self, spec: Node, node: PlannedNode) -> bool:
        if isinstance(spec, Tree):
            return len(spec.ensemble.children()) == len(node.members) and \
                tree_id(spec.ensemble, node.members) == node.id
        if isinstance(spec, Filed):
            return filed_id(read(spec.path, spec.shown, self.data[node.suite]), node.suite) == node.id
        if isinstance(spec, Stored):
            return spec.id == node.id
        return node.id in self.models and self._decisive(spec.model) == self._decisive(self.models[node.id])

    def _decisive(self, model: Model) -> dict[str, Any]:
        """Return what decides a model, without the nodes that it was made of, which need not be in the bundle."""
        if isinstance(model, SoupModel):
            return {"recipe": model.soup.recipe}
        fields = {key: value for key, value in model.canonical().items() if key not in ("teacher", "start")}
        if self.is_settled:
            fields["train"] = {key: value for key, value in fields["train"].items() if key != "precision"}
        return fields

    def compare_names(self, systems: Mapping[str, str]) -> None:
        """Check that each node has one of the names that the specs give it."""
        self.wrong += [f"no spec calls {id} `{node.name}`" for id, node in self.nodes.items()
                       if node.name not in self._names.get(id, {node.name})]
