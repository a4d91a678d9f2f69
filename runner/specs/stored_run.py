"""Restore the spec of a stored run from its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import Place, SpecError
from ..part import Known, Member, Part
from ..parts.heads import Head
from ..parts.suites import Suite
from ..project import Project
from ..registry.registry import MANIFEST, Registry, Run
from .spec import Leaf, Model, Resources, SoupModel, Stored
from .validation import PartBuilder, as_table


def trained_as(node: Member, project: Path) -> Model:
    """Return the model of a leaf or of a stored run, the latter with default resources.

    Raise SpecError where a stored run's spec is no longer valid.
    """
    if isinstance(node, Leaf):
        return node.model
    assert isinstance(node, Stored)
    run = Registry(Project(project).registry).find(node.id)
    assert run
    model = model_of(run.manifest["spec"], Place(str(run.folder / MANIFEST)), project)
    return model.model_copy(update={"resources": Resources()})


def suite_of(run: Run, project: Path) -> Suite:
    """Return the suite that a run was trained on. Raise SpecError where it is no longer valid."""
    at = Place(str(run.folder / MANIFEST))
    builder = PartBuilder(project)
    table = as_table(run.manifest["spec"].get("suite", {}), at)
    suite = builder.part(Suite, table, at, "suite")  # type: ignore[type-abstract]
    if suite is None:
        raise SpecError(*builder.problems)
    return suite


def shape(model: Model) -> dict[str, Any]:
    """Return the fields that decide the shapes and the meaning of a model's weights, by key."""
    encoder, training_only = model.encoder.canonical(), type(model.encoder).training_only
    fields = {f"encoder.{key}": value for key, value in encoder.items() if key not in training_only}
    fields |= {f"adapter.{key}": value for key, value in (model.adapter.canonical() if model.adapter else {}).items()}
    for task, head in sorted(model.heads.items()):
        own = {key: value for key, value in head.canonical().items() if key not in Head.model_fields}
        if head.pooling not in (None, getattr(model.encoder, "pooling", None)):
            own["pooling"] = head.pooling
        fields |= {f"heads.{task}.{key}": value for key, value in own.items()}
    return fields


def changed_files(inputs: Mapping[str, str], model: Model, project: Path) -> list[str]:
    """Return the encoder's files that are others now, if a run of a model has the encoder's weights there only.

    `inputs` are the hashes in the run's manifest.
    """
    if model.stores_encoder:
        return []
    other = set(model.teacher.unlabelled.values()) if model.teacher else set()
    then = {name: sha256 for name, sha256 in inputs.items() if name not in other}
    now = model.encoder.inputs(project)
    return sorted(name for name in {*then, *now} if then.get(name) != now.get(name))


P = TypeVar("P", bound=Part)


def model_of(values: Mapping[str, Any], at: Place, project: Path) -> Model:
    """Build the model of a training job or a manifest at `at`. Raise SpecError where it is no longer valid."""
    return build_part(SoupModel if "soup" in values else Model, values, at, project, {})


def build_part(base: type[P], values: Mapping[str, Any], at: Place, project: Path, names: Mapping[str, str]) -> P:
    """Build a part from plain JSON, whose members are content ids; `names` are their names. Raise SpecError."""
    builder = PartBuilder(project, lambda id, place, where: [Known(names.get(id, ""), id)])
    part = builder.part(base, as_table(dict(values), at), at)
    if part is None:
        raise SpecError(*builder.problems)
    return part
