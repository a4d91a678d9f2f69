"""Finished runs that a person wants trained again: by name, or since their code is older than the present one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .errors import UsageError, did_you_mean
from .loader import named_under
from .plan import Plan, Planned
from .spec import Leaf


def renew(plan: Plan, forced: Sequence[str], stale: bool) -> None:
    """Have the leaves of nodes named in `forced` trained again and, where asked for, those of older code.

    The finished run stays where it is until the new one takes its place. Raise UsageError for an unknown node.
    """
    for identity in dict.fromkeys(leaf for name in forced for leaf in _leaves(plan, _named(plan, name))):
        _renew(plan, plan.nodes[identity], "forced")
    for node in list(plan.nodes.values()) if stale else ():
        if node.stale:
            _renew(plan, node, node.reason)
    plan.settle()


def _named(plan: Plan, name: str) -> str:
    """Return the id of the node with a name, or with an id."""
    meant = {name, named_under(name, plan.settings)}
    found = next((node.id for node in plan.nodes.values() if meant & {node.name, node.id}), None)
    if found is None:
        known = [node.name for node in plan.nodes.values() if node.name]
        raise UsageError(f"no node `{name}` in this build. {did_you_mean(name, known)}".rstrip())
    return found


def _leaves(plan: Plan, identity: str) -> Iterable[str]:
    """Yield a node that is trained, or all such below it."""
    node = plan.nodes[identity]
    if isinstance(node.node, Leaf):
        yield identity
    for member in node.members:
        yield from _leaves(plan, member)


def _renew(plan: Plan, node: Planned, reason: str) -> None:
    """Plan the training of a leaf whose finished run, if there is a sound one, is to be replaced."""
    if node.action == "reuse":
        run = plan.registry.find(node.id)
        replaces = run.manifest["sha256"] if run else ""
        plan.nodes[node.id] = replace(node, action="train", reason=reason, stale=(), replaces=replaces)
