"""Plans made again from results: the specs that results name, each with the settings that it was built with."""

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
    """Return one plan of the specs of some results, without those that are gone or can no longer be planned.

    Results of older versions do not name their specs: then it is each spec called as a node of the results is.
    """
    plan = Plan(project, profile, Registry(Project(project).registry))
    groups: dict[tuple[str, ...], list[Path]] = {}
    for result in results:
        specs = [project / result.spec] if result.spec else _called(project, result)
        groups.setdefault(result.settings, []).extend(specs)
    for settings, specs in groups.items():
        for part in _plans(project, list(dict.fromkeys(filter(Path.is_file, specs))), profile, settings):
            plan.add(part)
    return plan


def _called(project: Path, result: Result) -> list[Path]:
    """Return the specs that are called as the nodes of a result are, those with the root's name first."""
    names = {node.name.partition("@")[0] for node in result.tree.nodes()}
    specs = [path for path in spec_files(project) if path.stem in names]
    return sorted(specs, key=lambda path: (path.stem != result.tree.name, len(path.parts), path))


def spec_files(project: Path) -> Iterator[Path]:
    """Yield the files of models, soups and ensembles."""
    for path in sorted(project.glob("specs/**/*.toml")):
        if not {"profiles", "suites"} & set(path.relative_to(Project(project).specs).parts[:-1]):
            yield path


def _plans(project: Path, specs: Sequence[Path], profile: str, settings: Sequence[str]) -> Iterator[Plan]:
    """Yield one plan of some specs or, where some cannot be planned together, one for each that can."""
    with contextlib.suppress(MtrunError):
        yield make_plan(project, specs, profile, settings)
        return
    for spec in specs if len(specs) > 1 else ():
        with contextlib.suppress(MtrunError):
            yield make_plan(project, [spec], profile, settings)
