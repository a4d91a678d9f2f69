"""Render specs for `mtrun check`: one line each, or resolved TOML with the place of each value."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import Place, clean
from ..part import Known, Member, Part, plain_dump
from .spec import Filed, Leaf, Node, SoupModel, Spec, Stored, Tree
from .toml import Table
from .toml_errors import written, written_key

DEFAULT = "default"

UNSET = "not set"

RULE = "# ===="
"""Start of the first line of each spec, where several are printed."""

WIDE = 44
"""Column of the comments, except behind longer lines."""

Line = tuple[str, str]
"""A line of TOML and its comment."""


def summary(loaded: Iterable[Sequence[Spec]]) -> str:
    """Render one line for each file that was checked, given the nodes of each."""
    rows = [(clean(nodes[0].place.file), _description(nodes)) for nodes in loaded]
    width = max(len(file) for file, _ in rows)
    return "\n".join(f"{file:{width}}  ok: {what}" for file, what in rows)


def _description(nodes: Sequence[Spec]) -> str:
    """Describe the nodes of a file in a few words; models that differ only in name count once."""
    first = nodes[0]
    if isinstance(first, Leaf) and isinstance(first.model, SoupModel):
        return first.model.summary()
    if isinstance(first, Leaf):
        return "model" if len(nodes) == 1 else f"sweep of {len(nodes)} models"
    below: dict[int, Any] = {id(first): first}
    todo = [first]
    while todo:
        new = {id(child): child for child in todo.pop().ensemble.children() if id(child) not in below}
        below |= new
        todo += [child for child in new.values() if isinstance(child, Tree)]
    models = {json.dumps([leaf.model.canonical(), leaf.model.suite.canonical()], default=id)
              for leaf in below.values() if isinstance(leaf, Leaf)}
    stored = {node.id for node in below.values() if isinstance(node, Stored)}
    filed = {node.path for node in below.values() if isinstance(node, Filed)}
    counts = [f"{len(group)} {what}{'s' * (len(group) > 1)}"
              for group, what in ((models, "model"), (stored, "stored run"), (filed, "predictions file")) if group]
    return f"ensemble of {' and '.join(counts)}"


def resolved(specs: Iterable[Spec]) -> str:
    """Render specs and all nodes below them, each once, as TOML with the place of each value as a comment."""
    seen: set[int] = set()
    documents = [text for spec in specs for text in _documents(spec, spec.name, seen)]
    return "\n\n".join(documents)


def _documents(node: Node, name: str, seen: set[int]) -> Iterator[str]:
    """Yield the document of a node, then of the nodes below it that are not in `seen`."""
    if isinstance(node, Stored | Filed) or id(node) in seen:
        return
    seen.add(id(node))
    yield f"{RULE} {name}\n{document(node, name)}"
    for child, label in zip(_below(node), _labels(node, name), strict=True):
        yield from _documents(child, label, seen)


def _below(node: Leaf | Tree) -> tuple[Any, ...]:
    """Return the members of an ensemble, or the models that a leaf needs."""
    return node.ensemble.children() if isinstance(node, Tree) else node.model.needs


def document(node: Spec, name: str) -> str:
    """Render one node, members by name only, as TOML with the place of each value as a comment."""
    kind, lines = ("ensemble", _tree(node, name)) if isinstance(node, Tree) else _leaf(node, _labels(node, name))
    file = clean(str(node.place) if not node.name else node.place.file)
    head = [(f'kind = "{kind}"', file), (f"name = {written(name)}", file)]
    return "\n".join(_commented(line) for line in (*head, *lines))


def _commented(line: Line) -> str:
    text, comment = line
    return f"{text:{WIDE}}  # {comment}" if comment else text


def _origin(at: Place | None) -> str:
    """Format the place where a value was set as a comment."""
    if at is None:
        return DEFAULT
    return clean(at.text if not at.line and at.text else str(at))


def _leaf(leaf: Leaf, labels: Sequence[str]) -> tuple[str, Iterator[Line]]:
    """Return the kind and the lines of a leaf; the nodes that it needs are shown by their labels."""
    model = leaf.model
    if isinstance(model, SoupModel):
        members = [(f"  {written(label)},", _origin(at)) for label, at in zip(labels, leaf.member_places, strict=True)]
        recipe = _line("recipe", model.soup.recipe, leaf.table.values_at.get("recipe"))
        return "soup", iter([("members = [", ""), *members, ("]", ""), recipe])
    known: dict[str, Any] = {"start": Known("", labels[-1])} if model.start else {}
    if model.teacher:
        known["teacher"] = model.teacher.model_copy(update={"spec": Known("", labels[0])})
    return "model", _part(model.model_copy(update=known), leaf.table, (), None)


def _tree(tree: Tree, name: str) -> Iterator[Line]:
    """Yield the lines of an ensemble; its members are shown by their labels."""
    yield from _header(("tree",))
    yield f"type = {written(tree.ensemble.type)}", _origin(tree.table.values_at["type"])
    labels = {id(child): label for child, label in zip(tree.ensemble.children(), _labels(tree, name), strict=True)}
    places = iter(tree.member_places)
    late: list[Line] = []
    for key in [*tree.table, *(f for f in type(tree.ensemble).model_fields if f not in tree.table)]:
        value = getattr(tree.ensemble, key, None)
        if isinstance(value, tuple) and value and isinstance(value[0], Member):
            yield f"{key} = [", ""
            yield from ((f"  {written(labels[id(child)])},", _origin(next(places))) for child in value)
            yield "]", ""
        elif isinstance(value, dict) and any(isinstance(child, Member) for child in value.values()):
            late += _header(("tree", key))
            late += [(f"{written_key(entry)} = {written(labels[id(child)])}", _origin(next(places)))
                     for entry, child in value.items()]
        elif key != "type":
            yield _line(key, value, tree.table.values_at.get(key))
    yield from late


def _labels(node: Leaf | Tree, name: str) -> list[str]:
    """Return a label for each member: its name, its run, or the node's name with the member's number."""
    return [child.path.name if isinstance(child, Filed) else child.name or f"{name}#{number}"
            for number, child in enumerate(_below(node), 1)]


def _part(part: Part, table: Table | None, path: tuple[str, ...], at: Place | None) -> Iterator[Line]:
    """Yield the lines of a part: its own values, then its tables; `at` is the place of a part given by name only."""
    if part.type:
        yield f"type = {written(part.type)}", _origin(table.values_at.get("type") if table else at)
    inner: list[tuple[str, Any]] = []
    for key in type(part).model_fields:
        value = getattr(part, key)
        place = table.values_at.get(key) if table is not None else None
        if isinstance(value, Part) and value.type and not type(value).model_fields:
            below = table.get(key) if table is not None else None
            yield _line(key, value.type, below.values_at["type"] if isinstance(below, Table) else place)
        elif isinstance(value, Part) or (isinstance(value, dict) and any(isinstance(v, Part) for v in value.values())):
            inner.append((key, value))
        else:
            yield _line(key, value, place)
    for key, value in inner:
        below, place = (table.get(key), table.values_at.get(key)) if table is not None else (None, None)
        yield from _inner(value, below, (*path, key), place)


def _inner(value: Any, below: Any, path: tuple[str, ...], at: Place | None) -> Iterator[Line]:
    """Yield the lines of a part in its own table, or of a dictionary of parts."""
    if isinstance(value, Part):
        yield from _header(path)
        yield from _part(value, below if isinstance(below, Table) else None, path, at)
        return
    for key, part in value.items():
        yield from _inner(part, below.get(key), (*path, key), below.values_at.get(key))


def _header(path: tuple[str, ...]) -> Iterator[Line]:
    yield "", ""
    yield f"[{'.'.join(map(written_key, path))}]", ""


def _line(key: str, value: Any, at: Place | None) -> Line:
    if value is None:
        return f"# {written_key(key)} is {UNSET}", ""
    return f"{written_key(key)} = {written(plain_dump(value))}", _origin(at)
