"""Arguments and options that several commands share, and the plan of the specs on a command line."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .completion import complete_profiles, complete_settings, complete_specs

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..registry.reservations import Reservation

F = TypeVar("F", bound=Callable[..., Any])

class Number(click.FloatRange):
    """Click type of a finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; refuse nan, which no bound refuses, and infinity."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


SPECS = click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=Path), shell_complete=complete_specs)

SPEC = click.argument("spec", type=click.Path(path_type=Path), shell_complete=complete_specs)

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines: one object per line.")


def plan_options(command: F) -> F:
    """Add the options of every command that resolves specs: `--profile` and `--set`."""
    command = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", shell_complete=complete_settings,
                           help="Override a key in all models, such as train.epochs=3; can be repeated.")(command)
    return click.option("--profile", default="", shell_complete=complete_profiles,
                        help="Defaults under all specs: the name of a file in specs/profiles/; default: that of "
                        "MTRUN_PROFILE, else of mtrun.toml, else demo.")(command)


def load_plan(specs: Sequence[Path], profile: str, settings: Sequence[str]) -> Plan:
    """Return the plan of specs of one project, and print its notes on standard error."""
    from ..plan.planner import make_plan

    plan = make_plan(common_project(specs), specs, profile, settings)
    for note in plan.notes:
        click.echo(note, err=True)
    return plan


def load_reserved_plan(specs: Sequence[Path], profile: str, settings: Sequence[str]) -> tuple[Plan, Reservation]:
    """Return the plan of specs and a reservation that keeps its runs from removal until the command ends."""
    from ..registry.registry import Registry
    from ..registry.reservations import reserved

    registry = Registry(common_project(specs) / "registry")
    reservation = click.get_current_context().with_resource(reserved(registry))
    plan = load_plan(specs, profile, settings)
    reservation.hold(plan.nodes)
    return plan, reservation


def common_project(specs: Sequence[Path]) -> Path:
    """Return the project that specs belong to. Raise UsageError where they belong to several."""
    from ..errors import UsageError
    from ..project import Project

    projects = {Project.of(path).folder for path in specs}
    if len(projects) > 1:
        raise UsageError(f"these specs are of different projects: {', '.join(map(str, sorted(projects)))}")
    return projects.pop()


def find_node(plan: Plan, name: str | None) -> str:
    """Return the id of a node by its name or a prefix of its id, by default that of the only root.

    Raise UsageError where it is missing or ambiguous.
    """
    from ..errors import UsageError, did_you_mean
    from ..specs.loader import named_under

    if name is None:
        if len(plan.roots) > 1:
            names = ", ".join(plan.roots)
            raise UsageError(f"the spec has {len(plan.roots)} systems; choose one with `--node NAME`: {names}")
        return next(iter(plan.roots.values()))
    ids = {**{node.name: id for id, node in plan.nodes.items() if node.name}, **plan.roots}
    name = name if name in ids else named_under(name, plan.settings)
    if name in ids:
        return ids[name]
    matches = [id for id in plan.nodes if name and id.startswith(name)]
    if len(matches) != 1:
        raise UsageError(f"no node `{name}` in the spec. {did_you_mean(name, ids)}".rstrip())
    return matches[0]
