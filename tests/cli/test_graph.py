"""Graphs of a plan are read back by small parsers of Mermaid and of DOT; no name can break out of its quotes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import project
from runs import planned

from runner.cli.views.graph import dot, mermaid, text
from runner.errors import Place, clean
from runner.plan.plan import Plan, PlannedNode
from runner.registry.registry import Registry
from runner.specs.spec import Stored

MODEL = 'kind = "model"\nextends = "sum.toml"\n'
SPECS = {
    "mean": MODEL + 'combiner = "mean"\n',
    "rate": MODEL + '[sweep]\n"optimizer.lr_scale" = [1.0, 2.0]\n',
    "tree": '''kind = "ensemble"
[tree]
type = "average"
members = ["sum.toml", "rate.toml", { type = "route", routes = { sentiment = "mean.toml", similarity = "mean.toml" } }]
''',
}
Graph = tuple[dict[str, str], Counter[tuple[str, str, str]]]
"""Labels by id, and how often there is an edge from one id to another with a label."""

NODE = re.compile(r'    n([0-9a-f]{12})(?:\(\["([^"]*)"\]\)|\["([^"]*)"\]):::(\w+)')
EDGE = re.compile(r'    n([0-9a-f]{12}) -->(?:\|"([^"]*)"\|)? n([0-9a-f]{12})')
CLASS = re.compile(r"    classDef (\w+) fill:#[0-9a-f]{6},stroke:#666,color:#000")


def read_mermaid(source: str) -> Graph:
    """Read the part of Mermaid's flowchart that is used here; every line must be one that is known."""
    first, second, *body, last = source.split("\n")
    assert (first, second, last) == ("```mermaid", "flowchart TD", "```")
    labels, edges, classes, used = {}, Counter(), set(), set()
    for line in body:
        if found := NODE.fullmatch(line):
            assert found[1] not in labels
            labels[found[1]] = plain(found[2] or found[3])
            used.add(found[4])
        elif found := EDGE.fullmatch(line):
            edges[found[1], found[3], plain(found[2] or "")] += 1
        else:
            found = CLASS.fullmatch(line)
            assert found, line
            classes.add(found[1])
    assert classes == used
    return labels, edges


def plain(label: str) -> str:
    """Return what Mermaid shows for a label: `#34;` is a character, `<br/>` a new line."""
    assert not re.search(r"[`<>&]", label.replace("<br/>", ""))
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), label.replace("<br/>", "\n"))


TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|(->|[{}\[\]=,;])|([A-Za-z_]\w*))', re.S)


def read_dot(source: str) -> Graph:
    """Read DOT by its grammar: `digraph ID { node [..]; "id" [..]; "id" -> "id" [..]; }`."""
    at, tokens = 0, []
    while source[at:].strip():
        found = TOKEN.match(source, at)
        assert found, source[at:]
        at = found.end()
        tokens.append(found[0].strip())
    assert tokens[:3] == ["digraph", "plan", "{"] and tokens[-1] == "}"
    labels, edges = {}, Counter()
    statements: list[list[str]] = [[]]
    for token in tokens[3:-1]:
        statements.append([]) if token == ";" else statements[-1].append(token)
    assert statements.pop() == []
    for statement in statements[1:]:
        cut = statement.index("[") if "[" in statement else len(statement)
        values = attributes(statement[cut:])
        if "->" in statement[:cut]:
            above, arrow, below = statement[:cut]
            assert arrow == "->"
            edges[above.strip('"'), below.strip('"'), values.get("label", "")] += 1
        else:
            (name,) = statement[:cut]
            assert name.strip('"') not in labels
            labels[name.strip('"')] = values["label"]
    return labels, edges


def attributes(tokens: Sequence[str]) -> dict[str, str]:
    """Read `[a="b", c="d"]`."""
    if not tokens:
        return {}
    assert (tokens[0], tokens[-1]) == ("[", "]")
    found = {}
    for number, token in enumerate(tokens[1:-1]):
        if number % 4 == 0:
            key, equals, value = tokens[1:-1][number : number + 3]
            assert equals == "=" and re.fullmatch(r"\w+", key) and value[0] == '"'
            found[key] = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), value[1:-1], flags=re.S)
        elif number % 4 == 3:
            assert token == ","
    return found


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return planned(project(tmp_path, **SPECS), "tree")


@pytest.mark.parametrize(("draw", "read"), [(mermaid, read_mermaid), (dot, read_dot)])
def test_a_graph_has_each_node_and_each_edge_once(plan: Plan, draw, read) -> None:  # type: ignore[no-untyped-def]
    labels, edges = read(draw(plan))
    assert labels == {id: f"{node.title}\n{node.state}" for id, node in plan.nodes.items()}
    by_title = {(plan.nodes[a].title, plan.nodes[b].title, label): count for (a, b, label), count in edges.items()}
    assert by_title == {
        ("tree", "sum", "x2"): 1, ("tree", "rate@lr_scale=2.0", ""): 1, ("tree", "route of 2", ""): 1,
        ("route of 2", "mean", "sentiment, similarity"): 1}


def test_the_text_has_a_line_for_each_node(plan: Plan) -> None:
    assert text(plan) == "\n".join([
        "score   tree               sum x2, rate@lr_scale=2.0, route of 2",
        "score   route of 2         sentiment, similarity: mean",
        "train   mean",
        "train   rate@lr_scale=2.0",
        "train   sum"])


@given(st.lists(st.text(min_size=1), min_size=1))
def test_no_name_breaks_a_graph(names: list[str]) -> None:
    plan = Plan(Path(), "demo", Registry(Path()))
    for number, name in enumerate(names):
        id = f"{number:012x}"
        plan.nodes[id] = PlannedNode(id, name, Stored(id, Place("")), (), "reuse", "", "")
    expected = {id: f"{clean(node.name)}\nreuse" for id, node in plan.nodes.items()}
    assert read_dot(dot(plan))[0] == expected
    assert read_mermaid(mermaid(plan))[0] == expected
    assert len(text(plan).splitlines()) == len(names)
