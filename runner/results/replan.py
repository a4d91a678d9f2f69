"""Make the plan of existing results again, from the specs and the settings that they name."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import MtrunError
from ..plan.plan import Plan
from ..plan.planner import make_plan
from ..project import Project
from ..registry.registry import Registry
from .result import Result


def replanned(project: Path, profile: str, results: Sequence[Result]) -> Plan:
    """Return one plan of the specs of some results; missing and invalid specs are skipped.

    Results of older versions do not name their specs; for these, use each spec with the name of a node in the result.
    """
    plan = Plan(project, profile, Registry(Project(project).registry))
    groups: dict[tuple[str, ...], list[Path]] = {}
    for result in results:
        specs = [project / result.spec] if result.spec else _specs_by_name(project, result)
        groups.setdefault(result.settings, []).extend(specs)
    for settings, specs in groups.items():
        for part in _plans(project, list(dict.fromkeys(filter(Path.is_file, specs))), profile, settings):
            plan.add(part)
    return plan


def _specs_by_name(project: Path, result: Result) -> list[Path]:
    """Return the specs named as the nodes of a result, those with the name of the root first."""
    names = {node.name.partition("@")[0] for node in result.tree.nodes()}
    specs = [path for path in spec_files(project) if path.stem in names]
    return sorted(specs, key=lambda path: (path.stem != result.tree.name, len(path.parts), path))


def spec_files(project: Path) -> Iterator[Path]:
    """Yield the spec files of models, soups and ensembles."""
    for path in sorted(project.glob("specs/**/*.toml")):
        if not {"profiles", "suites"} & set(path.relative_to(Project(project).specs).parts[:-1]):
            yield path


def _plans(project: Path, specs: Sequence[Path], profile: str, settings: Sequence[str]) -> Iterator[Plan]:
    """Yield one plan of all specs or, if that fails, one plan for each valid spec."""
    with contextlib.suppress(MtrunError):
        yield make_plan(project, specs, profile, settings)
        return
    for spec in specs if len(specs) > 1 else ():
        with contextlib.suppress(MtrunError):
            yield make_plan(project, [spec], profile, settings)
