"""The spec of a stored run, read back from its manifest."""

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
    """Return what a leaf is to be trained as, or a stored run was, but for what it was given to be trained with.

    Raise SpecError for one of no valid spec.
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
    assembly = PartBuilder(project)
    suite = assembly.part(Suite, as_table(run.manifest["spec"]["suite"], at), at, "suite")  # type: ignore[type-abstract]
    if suite is None:
        raise SpecError(*assembly.problems)
    return suite


def shape(model: Model) -> dict[str, Any]:
    """Return what decides the shapes and the meaning of a model's weights, by the key that sets it."""
    encoder, training_only = model.encoder.canonical(), type(model.encoder).training_only
    found = {f"encoder.{key}": value for key, value in encoder.items() if key not in training_only}
    for task, head in sorted(model.heads.items()):
        fields = {key: value for key, value in head.canonical().items() if key not in Head.model_fields}
        found |= {f"heads.{task}.{key}": value for key, value in fields.items()}
    return found

P = TypeVar("P", bound=Part)


def model_of(values: Mapping[str, Any], at: Place, project: Path) -> Model:
    """Return the model in an order or a manifest, which `at` names. Raise SpecError where it is no longer valid."""
    return _part(SoupModel if "soup" in values else Model, values, at, project, {})


def _part(base: type[P], values: Mapping[str, Any], at: Place, project: Path, names: Mapping[str, str]) -> P:
    """Return the part in plain JSON, whose members are content ids with perhaps a name. Raise SpecError."""
    assembly = PartBuilder(project, lambda id, place, where: [Known(names.get(id, ""), id)])
    part = assembly.part(base, as_table(dict(values), at), at)
    if part is None:
        raise SpecError(*assembly.problems)
    return part
