"""What commands have in common: their options, and the plan of the specs that they are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import completion

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..registry.reservations import Reservation

F = TypeVar("F", bound=Callable[..., Any])

SPECS = click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=Path),
                       shell_complete=completion.specs)

SPEC = click.argument("spec", type=click.Path(path_type=Path), shell_complete=completion.specs)

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line on standard output.")


def planning(command: F) -> F:
    """Add what every command takes that resolves specs."""
    command = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", shell_complete=completion.settings,
                           help="Override a key in every model, such as train.epochs=3.")(command)
    return click.option("--profile", default="demo", show_default=True, shell_complete=completion.profiles,
                        help="A file of specs/profiles/.")(command)


def planned(specs: Sequence[Path], profile: str, settings: Sequence[str]) -> Plan:
    """Return the plan of specs of one project, and say what a person should know of it."""
    from ..plan.planner import make_plan

    plan = make_plan(one_project(specs), specs, profile, settings)
    for note in plan.notes:
        click.echo(note, err=True)
    return plan


def reserving(specs: Sequence[Path], profile: str, settings: Sequence[str]) -> tuple[Plan, Reservation]:
    """Return the plan of specs, whose runs nobody removes until the command ends."""
    from ..registry.registry import Registry
    from ..registry.reservations import reserved

    registry = Registry(one_project(specs) / "registry")
    mine = click.get_current_context().with_resource(reserved(registry))
    plan = planned(specs, profile, settings)
    mine.hold(plan.nodes)
    return plan, mine


def one_project(specs: Sequence[Path]) -> Path:
    """Return the project of some specs. Raise UsageError where they are of several."""
    from ..errors import UsageError
    from ..project import project_of

    projects = {project_of(path) for path in specs}
    if len(projects) > 1:
        raise UsageError(f"these specs are of different projects: {', '.join(map(str, sorted(projects)))}")
    return projects.pop()


def one_node(plan: Plan, name: str | None) -> str:
    """Return the id of the node that a person means: by name or beginning of its id, else the only root."""
    from ..errors import UsageError, did_you_mean
    from ..specs.loader import named_under

    if name is None:
        if len(plan.roots) > 1:
            names = ", ".join(plan.roots)
            raise UsageError(f"the spec has {len(plan.roots)} systems; choose one with `--node NAME`: {names}")
        return next(iter(plan.roots.values()))
    named = {**{node.name: id for id, node in plan.nodes.items() if node.name}, **plan.roots}
    name = name if name in named else named_under(name, plan.settings)
    found = {id for id in plan.nodes if name and id.startswith(name)}
    if name in named:
        return named[name]
    if len(found) != 1:
        raise UsageError(f"no node `{name}` in the spec. {did_you_mean(name, named)}".rstrip())
    return found.pop()
