"""Sweeps: which models they make, and that every name is a file's whatever the values are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from projects import project

from runner.errors import Place, SpecError
from runner.files import is_safe_name
from runner.specs.loader import Loader
from runner.specs.spec import Leaf
from runner.specs.sweep import points, spread
from runner.specs.toml import Array, Table, parse

HEAD = 'kind = "model"\nextends = "sum.toml"\n'


def leaves(root: Path, name: str, *settings: str) -> dict[str, Leaf]:
    nodes = Loader(root, "demo", settings).load(root / "specs" / f"{name}.toml")
    return {node.name: node for node in nodes if isinstance(node, Leaf)}


def sweep(root: Path, text: str) -> dict[str, Leaf]:
    return leaves(project(root, x=f"{HEAD}{text}"), "x")


def refused(root: Path, text: str) -> str:
    with pytest.raises(SpecError) as caught:
        sweep(root, text)
    return "; ".join(p.message for p in caught.value.problems)


def test_named_points_times_a_grid(tmp_path: Path) -> None:
    found = sweep(tmp_path, '[sweep]\n"train.seed" = [1, 2]\n[sweep.points.small]\ntrain.batch_size = 2\n'
                            '"optimizer.lr_scale" = 0.5\n[sweep.points.large]\ntrain.batch_size = 16\n')
    assert {name: (leaf.model.train.batch_size, leaf.model.train.seed, leaf.model.optimizer.lr_scale)
            for name, leaf in found.items()} == {
        "x@small,seed=1": (2, 1, 0.5), "x@small,seed=2": (2, 2, 0.5),
        "x@large,seed=1": (16, 1, 1.0), "x@large,seed=2": (16, 2, 1.0)}


def test_parts_tables_and_lists_can_be_swept(tmp_path: Path) -> None:
    found = sweep(tmp_path, '[sweep]\ncombiner = ["sum", "pcgrad"]\n'
                            'train.tasks = [["sentiment"], ["sentiment", "paraphrase"]]\n'
                            'heads.similarity = [{type = "cosine", loss = "bce"}, {type = "pair", loss = "mse"}]\n')
    assert len(found) == 8
    assert all(is_safe_name(name) for name in found)
    last = list(found.values())[-1].model
    assert (last.combiner.type, last.train.tasks, last.heads["similarity"].type) == (
        "pcgrad", ("sentiment", "paraphrase"), "pair")
    assert next(iter(found)).startswith("x@combiner=sum,tasks=sentiment,similarity=cosine-")


def test_a_key_is_named_by_as_much_as_tells_it_apart(tmp_path: Path) -> None:
    found = sweep(tmp_path, '[sweep]\nheads.similarity.loss = ["mse"]\nheads.paraphrase.loss = ["bce"]\n'
                            '"train.seed" = [1]\n')
    assert list(found) == ["x@similarity.loss=mse,paraphrase.loss=bce,seed=1"]


def test_a_sweep_is_inherited_key_by_key(tmp_path: Path) -> None:
    root = project(tmp_path, low=f'{HEAD}[sweep]\n"train.seed" = [1, 2]\n"optimizer.lr_scale" = [1.0, 2.0]\n',
                   x='extends = "low.toml"\n[sweep]\ntrain.seed = [7]\n')
    assert list(leaves(root, "x")) == ["x@seed=7,lr_scale=1.0", "x@seed=7,lr_scale=2.0"]
    assert {leaf.model.optimizer.lr_scale for leaf in leaves(root, "x", "optimizer.lr_scale=3.0").values()} == {3.0}


def test_an_order_of_types_and_options_does_not_matter(tmp_path: Path) -> None:
    text = '[sweep]\nheads.similarity.{} = [{}]\nheads.similarity.{} = [{}]\n'
    for number, order in enumerate([("type", '"pair"', "loss", '"mse"'), ("loss", '"mse"', "type", '"pair"')]):
        (leaf,) = sweep(tmp_path / str(number), text.format(*order)).values()
        assert (leaf.model.heads["similarity"].type, leaf.model.heads["similarity"].loss.type) == ("pair", "mse")


def test_the_limit_is_raised_by_its_key(tmp_path: Path) -> None:
    seeds = f"train.seed = [{', '.join(map(str, range(1001)))}]\n"
    assert refused(tmp_path, f"[sweep]\n{seeds}") == "this sweep has 1,001 points, and its limit is 1,000"
    assert len(sweep(tmp_path, f"[sweep]\nlimit = 1001\n{seeds}")) == 1001
    assert "whole number from 1 to 10,000" in refused(tmp_path, f"[sweep]\nlimit = 10001\n{seeds}")
    tenfold = "train.epochs = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n"
    assert refused(tmp_path, f"[sweep]\nlimit = 10000\n{seeds}{tenfold}").startswith("this sweep has 10,010 points")


@pytest.mark.parametrize(("text", "message"), [
    ("sweep = 3\n", "`sweep` must be a table of keys and lists"),
    ("[sweep]\ntrain.seed = []\n", "`train.seed` in `[sweep]` must be a list of the values to try, not an empty list"),
    ("[sweep]\nkind = [1]\n", "`kind` cannot be swept"),
    ("[sweep]\nextends = ['a']\n", "`extends` cannot be swept"),
    ("[sweep]\n'train.seed' = [1]\ntrain.seed = [2]\n", "`train.seed` is set twice in a sweep"),
    ("[sweep]\ncombiner = ['sum']\n'combiner.type' = ['sum']\n", "`combiner.type` is set twice in a sweep"),
    ("[sweep]\ntrain.seed = [1, 2, 1]\n", "`train.seed` in `[sweep]` has the same value twice"),
    ("[sweep.points.'a/b']\ntrain.seed = 1\n", "`a/b` cannot be the name of a point"),
    ("[sweep.points]\nsmall = 3\n", "`points` in `[sweep]` must hold tables, one for each point"),
    ("[sweep]\nlimit = true\n", "`limit` in `[sweep]` must be a whole number from 1 to 10,000"),
    ("[sweep]\n'a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a' = [1]\n", "a key of over 16 parts"),
])
def test_what_is_no_sweep(tmp_path: Path, text: str, message: str) -> None:
    assert refused(tmp_path, text) == message


VALUES = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
    | st.text(max_size=60),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=4)
AXIS = st.lists(VALUES, min_size=1, max_size=4)


def tabled(value: object) -> object:
    """A value as the reader of TOML gives it."""
    at = Place("x", 1)
    if isinstance(value, dict):
        table = Table(at)
        for key, item in value.items():
            table.put(key, tabled(item), at, at)
        return table
    if isinstance(value, list):
        array = Array()
        for item in value:
            array.put(tabled(item), at)
        return array
    return value


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=8), AXIS, min_size=1, max_size=3))
def test_names_are_safe_and_differ_whatever_the_values(axes: dict[str, list[object]]) -> None:
    table = tabled(axes)
    assert isinstance(table, Table)
    try:
        found = points("model", spread(table))
    except SpecError as error:
        known = "same value twice|set twice|`limit`|`points`"
        assert all(re.search(known, p.message) for p in error.problems)
        return
    names = [name for name, _ in found]
    assert all(is_safe_name(name) and len(name) <= 128 for name in names)
    assert len({name.lower() for name in names}) == len(names)


def test_places_are_those_of_key_and_value() -> None:
    table = parse('[sweep]\n"optimizer.lr" = [1.0,\n  2.0]\n', "f")["sweep"]
    _, point = points("x", spread(table))[1]
    assert point["optimizer"].keys_at["lr"] == Place("f", 2, 1)
    assert point["optimizer"].values_at["lr"] == Place("f", 3, 3)
