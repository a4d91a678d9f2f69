"""TOML: values are tomli's, every place is the true one, and nothing but SpecError comes out of bad text."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st
from toml_writer import TOML_1_1, Path, Writer

from runner.errors import Place, Problem, SpecError
from runner.specs import toml
from runner.specs.toml import Array, Table

Spot = tuple[int, int, int]  # line, column, width


def spot(place: Place) -> Spot:
    return place.line, place.column, place.width


def places(tree: Table) -> dict[tuple[str, Path], Place]:
    """Every place of a tree, by what it is the place of."""
    found: dict[tuple[str, Path], Place] = {}

    def walk(value: Any, path: Path) -> None:
        if isinstance(value, Table):
            found["table", path] = value.place
            assert list(value) == list(value.keys_at) == list(value.values_at)
            for key, inner in value.items():
                found["key", (*path, key)], found["value", (*path, key)] = value.keys_at[key], value.values_at[key]
                walk(inner, (*path, key))
        elif isinstance(value, Array):
            assert len(value) == len(value.items_at)
            for i, (inner, place) in enumerate(zip(value, value.items_at, strict=True)):
                found["value", (*path, i)] = place
                walk(inner, (*path, i))
        else:
            assert not isinstance(value, dict | list)

    walk(tree, ())
    return found


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_every_place_is_where_it_was_written(draw: random.Random, bom: bool, crlf: bool) -> None:
    writer = Writer(draw)
    text = writer.text.replace("\n", "\r\n") if crlf else writer.text
    tree = toml.parse("\ufeff" + text if bom else text, "spec.toml")
    assert tree == tomli.loads(text)
    assert {what: (*spot(p), p.text) for what, p in places(tree).items()} == writer.true_places()
    assert {p.file for p in places(tree).values()} == {"spec.toml"}


# --- one case a feature, places written by hand ---------------------------------------------------------------------

FEATURES: dict[str, tuple[str, dict[tuple[str, Path], Spot]]] = {
    "plain": ("lr = 1e-5 # c", {("key", ("lr",)): (1, 1, 2), ("value", ("lr",)): (1, 6, 4), ("table", ()): (1, 1, 13)}),
    "quoted": (""" "a b" = 'x'""", {("key", ("a b",)): (1, 2, 5), ("value", ("a b",)): (1, 10, 3)}),
    "escaped": ('"\\u00e9" = "\\"#\\\\"', {("key", ("é",)): (1, 1, 8), ("value", ("é",)): (1, 12, 7)}),
    "dotted": ("a . 'b'.c = 1\na.d = 2", {
        ("key", ("a",)): (1, 1, 1), ("value", ("a",)): (1, 1, 1), ("table", ("a",)): (1, 1, 1),
        ("key", ("a", "b")): (1, 5, 3), ("table", ("a", "b")): (1, 5, 3), ("key", ("a", "b", "c")): (1, 9, 1),
        ("value", ("a", "b", "c")): (1, 13, 1), ("key", ("a", "d")): (2, 3, 1)}),
    "header": ("\n  [ heads ]", {
        ("key", ("heads",)): (2, 5, 5), ("value", ("heads",)): (2, 3, 9), ("table", ("heads",)): (2, 3, 9)}),
    "dotted header": ("[a.b]\n[a]", {
        ("key", ("a",)): (2, 2, 1), ("table", ("a",)): (2, 1, 3), ("value", ("a",)): (2, 1, 3),
        ("key", ("a", "b")): (1, 4, 1), ("table", ("a", "b")): (1, 1, 5)}),
    "implied by a header": ("[a.b]", {("key", ("a",)): (1, 2, 1), ("table", ("a",)): (1, 2, 1)}),
    "array of tables": ("[[m]]\nx = 1\n[m.s]\n[[m]]\nx = 2", {
        ("key", ("m",)): (1, 3, 1), ("value", ("m",)): (1, 1, 5), ("value", ("m", 0)): (1, 1, 5),
        ("value", ("m", 1)): (4, 1, 5), ("table", ("m", 1)): (4, 1, 5), ("key", ("m", 1, "x")): (5, 1, 1),
        ("key", ("m", 0, "s")): (3, 4, 1), ("table", ("m", 0, "s")): (3, 1, 5)}),
    "inline": ("t = { a = 1, b.c = {} }", {
        ("value", ("t",)): (1, 5, 19), ("table", ("t",)): (1, 5, 19), ("key", ("t", "b")): (1, 14, 1),
        ("key", ("t", "b", "c")): (1, 16, 1), ("table", ("t", "b", "c")): (1, 20, 2)}),
    "array over lines": ("a = [ # ]\n  1, # ,\n\n 'x' , [2,\n]]", {
        ("value", ("a",)): (1, 5, 5), ("value", ("a", 0)): (2, 3, 1), ("value", ("a", 1)): (4, 2, 3),
        ("value", ("a", 2)): (4, 8, 3), ("value", ("a", 2, 0)): (4, 9, 1)}),
    "text over lines": ('a = """\nb = 1 # \\"""\n"""\nc = \'\'\'\n[x]\'\'\'\'\'\nd = 1', {
        ("value", ("a",)): (1, 5, 3), ("value", ("c",)): (4, 5, 3), ("key", ("d",)): (6, 1, 1)}),
    "dates": ("a = 1979-05-27 07:32:00 # c\nb = [1979-05-27 , 07:32:00]", {
        ("value", ("a",)): (1, 5, 19), ("value", ("b", 0)): (2, 6, 10), ("value", ("b", 1)): (2, 19, 8)}),
    "wide characters": ('a = ["日本", "😀"]', {("value", ("a", 0)): (1, 6, 4), ("value", ("a", 1)): (1, 12, 3)}),
    "empty": ("", {("table", ()): (1, 1, 1)}),
}
if TOML_1_1:
    FEATURES["inline over lines"] = ("t = { # }\n  a = 1,\n b = { c = 2, },\n}", {
        ("value", ("t",)): (1, 5, 5), ("key", ("t", "a")): (2, 3, 1), ("value", ("t", "b")): (3, 6, 10),
        ("key", ("t", "b", "c")): (3, 8, 1)})


@pytest.mark.parametrize("name", FEATURES)
def test_features(name: str) -> None:
    text, expected = FEATURES[name]
    tree = toml.parse(text, "spec.toml")
    assert tree == tomli.loads(text)
    found = places(tree)
    assert {what: spot(found[what]) for what in expected} == expected


def test_place_shows_the_line_without_mark_or_carriage_return() -> None:
    tree = toml.parse("\ufeffa = 1\r\nb.c = '2'\r\n", "spec.toml")
    assert tree.keys_at["a"].text == "a = 1"
    assert tree["b"].values_at["c"] == Place("spec.toml", 2, 7) and tree["b"].values_at["c"].text == "b.c = '2'"


def test_values_are_those_of_tomli() -> None:
    tree = toml.parse("a = 1979-05-27T07:32:00Z\nb = 1979-05-27\nc = true\nd = -0.0\ne = '''\r\nx\r\ny'''", "f")
    assert (tree["a"], tree["b"]) == (datetime(1979, 5, 27, 7, 32, tzinfo=UTC), date(1979, 5, 27))
    assert (tree["c"], str(tree["d"]), tree["e"]) == (True, "-0.0", "x\ny")


def test_of_a_very_long_line_the_part_around_the_caret_is_shown() -> None:
    tree = toml.parse(f"a = 1 # {'x' * 992}\nb = [{'0, ' * 400}17, {'0, ' * 400}1]", "spec.toml")
    arrow, _, line, under = Problem("no", tree["b"].items_at[400]).render().split("\n")[1:]
    assert arrow == " --> spec.toml:2:1206" and len(line) < 180
    assert line.startswith("2 | …") and line.endswith("…") and line[under.index("^") :].startswith("17,")
    assert Problem("no", tree.keys_at["a"]).render().split("\n")[3].startswith("1 | a = 1 # xxx")


def test_mutated_text_raises_only_spec_errors() -> None:
    draw = random.Random(0)
    samples = [text for text, _ in FEATURES.values()] + [Writer(random.Random(i)).text for i in range(60)]
    pieces = [*"[]{}=.,#\"'\\\n\r\t \0e_-+1xé\ufeff\x85", "[[", "]]", "nan", '"""', "'''", "\\u0000", "\r\n"]
    pieces += ["9" * 20, "9" * 400, "1e999", "[" * 40, "a." * 40]
    accepted = 0
    for _ in range(2000):
        text = draw.choice(samples)
        for _ in range(draw.randrange(1, 4)):
            start = draw.randrange(len(text) + 1)
            end = start + draw.choice((0, 0, 1, 3, 20))
            text = text[:start] + draw.choice((draw.choice(pieces), text[start:end] * 2, "")) + text[end:]
        try:
            tree = toml.parse(text, "spec.toml")
        except SpecError as error:
            assert error.render() and all(p.place and p.place.line and p.place.column >= 1 for p in error.problems)
        else:
            accepted += 1
            assert tree == tomli.loads(text.removeprefix("\ufeff"))
            widths = [len(line) for line in text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")]
            assert all(p.column + p.width - 1 <= max(1, widths[p.line - 1]) for p in places(tree).values())
    assert 200 < accepted < 1800
