"""Results files and the leaderboard: a golden table, damage, and markdown read by an independent parser."""

from __future__ import annotations

import itertools
import json
import os
import random
import string
import tempfile
from pathlib import Path

import pytest
from folders import text
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import ValidationError
from result_trees import AVERAGE, COSINE, ROUTE, SUM, TASKS, ensemble, leaf, publish, result, scores

from runner.errors import RegistryError, UsageError
from runner.results import result_folder
from runner.results.formats import escaped
from runner.results.leaderboard import page
from runner.results.result import Column, Result, ResultNode
from runner.results.result_folder import read
from runner.results.rows import leaderboard

GOLDEN = r"""# Leaderboard: demo

## demo: suite demo, content 010101010101, dev

| name        |       SST |   SST 95 % |     Quora |   Quora 95 % |       STS |   STS 95 % |   overall |   overall 95 % |
|:------------|----------:|-----------:|----------:|-------------:|----------:|-----------:|----------:|---------------:|
| ensemble3   |     0.500 |          — | **0.760** |            — |     0.530 |          — | **0.675** |              — |
| cosine_mse  |     0.490 |          — |     0.751 |            — | **0.557** |          — |     0.673 |              — |
| sum         |     0.500 |          — |     0.750 |            — |     0.500 |          — |     0.667 |              — |
| ensemble2\* | **0.513** |          — |         — |            — | **0.557** |          — |         — |              — |
| sst\|only\* | **0.513** |          — |         — |            — |         — |          — |         — |              — |

\* chosen on dev, or made of what was, and not cross-fitted: its dev score is apparent

95 %: bootstrap interval over the examples

not tested against the best: ensemble3, cosine_mse, sum, ensemble2, sst\|only (docs/significance.md says when)

## demo: suite demo, content 010101010101, test

| name       |       SST |   SST 95 % |     Quora |   Quora 95 % |       STS |   STS 95 % |   overall |   overall 95 % |
|:-----------|----------:|-----------:|----------:|-------------:|----------:|-----------:|----------:|---------------:|
| cosine_mse | **0.410** |          — |     0.690 |            — | **0.500** |          — | **0.617** |              — |
| sum        |     0.400 |          — | **0.700** |            — |     0.450 |          — |     0.608 |              — |

95 %: bootstrap interval over the examples

not tested against the best: cosine_mse, sum (docs/significance.md says when)

## demo: suite demo, content 010101010101, what the systems are

| name        | what it is            |   parameters | members                                                                |
|:------------|:----------------------|-------------:|:-----------------------------------------------------------------------|
| ensemble3   | average of 2          |            — | sum, cosine_mse                                                        |
| cosine_mse  | sum, linear+pair+pair |            — |                                                                        |
| sum         | sum, linear+pair+pair |        1,234 |                                                                        |
| ensemble2\* | route of 2            |            — | similarity: best of 2 by similarity (cosine_mse), sentiment: sst\|only |
| sst\|only\* | sum, linear+pair+pair |            — |                                                                        |
"""  # noqa: E501


# ------------------------------------------------------------------------------------------------------- the table

def test_the_leaderboard_is_the_golden_one(tmp_path: Path) -> None:
    publish(tmp_path, result(ROUTE), result(AVERAGE), result(SUM))
    (tmp_path / "demo" / "costs.json").write_text("[]")
    (tmp_path / "README.md").write_text("not a profile")
    (tmp_path / "empty").mkdir()
    (made,) = [page(one) for one in read(tmp_path)]
    assert made == GOLDEN


def test_the_leaderboard_does_not_depend_on_the_order_of_results() -> None:
    trees = [result(t) for t in (ROUTE, AVERAGE, SUM, COSINE)]
    expected = leaderboard(trees)
    for seed in range(10):
        random.Random(seed).shuffle(trees)
        assert leaderboard(trees) == expected
    assert [row.names for row in expected] == [("ensemble3",), ("cosine_mse",), ("sum",), ("ensemble2",), ("sst|only",)]


def test_equal_rows_are_in_the_order_of_their_names() -> None:
    rows = leaderboard([result(leaf(name, digit, (0.5, 0.5, 0.5, 0.583333))) for name, digit in
                        (("b", "1"), ("c", "2"), ("a", "3"))])
    assert [row.names[0] for row in rows] == ["a", "b", "c"]


def test_a_row_without_an_overall_is_below_the_worst() -> None:
    rows = leaderboard([result(leaf("a", "1", (1.0, None, None, None))), result(leaf("b", "2", (0.0, 0.0, -1.0, 0.0)))])
    assert [row.names[0] for row in rows] == ["b", "a"]


def test_a_name_that_looks_like_a_number_stays_as_it_is() -> None:
    assert markdown_of(result(leaf("1.50", "1", (0.5, 0.5, 0.5, 0.583333))))[1][0] == "1.50"


def test_a_node_with_several_names_is_one_row_and_is_known_by_the_shortest() -> None:
    again = SUM.model_copy(update={"name": "lr-sweep=1"})
    unnamed = SUM.model_copy(update={"name": ""})
    tree = ensemble("e", "9", "average of 3", (0.5, 0.75, 0.5, 0.666667), again, unnamed, unnamed)
    rows = {row.names: row for row in leaderboard([result(tree), result(SUM)])}
    assert set(rows) == {("e",), ("sum", "lr-sweep=1")}
    assert rows[("e",)].members == ("sum", "sum", "sum")


def test_an_unnamed_node_is_shown_inside_its_parent_only() -> None:
    plain = SUM.model_copy(update={"name": "", "id": "0" * 12})
    inner = ensemble("", "7", "average of 2", (0.5, 0.75, 0.5, 0.666667), plain, COSINE)
    outer = ensemble("outer", "8", "average of 2", (0.5, 0.75, 0.5, 0.666667), inner, AVERAGE)
    rows = {row.names[0]: row for row in leaderboard([result(outer)])}
    assert set(rows) == {"outer", "ensemble3", "sum", "cosine_mse"}
    assert rows["outer"].members == ("average of 2 (sum, linear+pair+pair, cosine_mse)", "ensemble3")


def test_what_was_chosen_on_dev_marks_all_that_is_made_of_it() -> None:
    assert {node.id[0]: node.is_apparent() for node in ROUTE.nodes()} == {
        "e": True, "d": True, "a": False, "b": False, "c": True}
    assert not AVERAGE.is_apparent()
    assert "apparent" not in "".join(map(str, markdown_of(result(AVERAGE))))


def markdown_text(*results: Result) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return text(publish(Path(folder), *results), columns="+what,members")


def markdown_of(*results: Result) -> list[list[str]]:
    """Return header and rows of the one table of some results, as a markdown parser reads it."""
    return cells(markdown_text(*results))


def cells(text: str) -> list[list[str]]:
    """Return the text of each cell of the first table, formatting gone."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    rows: list[list[str]] = []
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in ("th_open", "td_open"):
            inside = token.children or []
            assert {child.type for child in inside} <= {"text", "text_special", "strong_open", "strong_close"}
            rows[-1].append("".join(child.content for child in inside))
    return rows


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from(string.punctuation + "aé1 中—"), min_size=1).map(lambda t: " ".join(t.split()))
                .filter(bool), min_size=3, max_size=3))
def test_any_text_is_shown_as_it_is(texts: list[str]) -> None:
    name, what, title = texts
    node = ResultNode(name=name, id="a" * 12, kind="leaf", what=what, scores={"dev": {"t": 0.5, "overall": 0.5}})
    header, row = markdown_of(result(node, tasks=(Column(name="t", title=title, kind="binary"),)))
    assert header == ["name", title, "overall", "overall 95 %", "what it is", "members"]
    assert row == [name, "0.500", "0.500", "—", what, ""]


def test_control_characters_never_reach_a_table() -> None:
    assert escaped("a\nb\x1b[31m\u202e") == "a\ufffdb\ufffd\\[31m\ufffd"
    assert escaped("lr_scale __init__ a*b") == "lr_scale \\_\\_init\\_\\_ a\\*b"


def test_bold_marks_all_that_look_like_the_best_of_a_column() -> None:
    rows = [leaf(name, digit, (x, 0.5, r, None)) for name, digit, x, r in
            (("a", "1", 0.70012, -0.2), ("b", "2", 0.70048, -0.1), ("c", "3", 0.69, None))]
    made = markdown_text(*map(result, rows))
    assert [line.count("**") // 2 for line in made.splitlines() if line.startswith(("| a", "| b", "| c"))] == [2, 3, 1]
    assert "**-0.100**" in made


def test_each_suite_has_its_own_table_and_each_profile_its_own_page(tmp_path: Path) -> None:
    other = leaf("other", "6", (0.9, 0.9, 0.9, 0.9))
    publish(tmp_path, result(SUM), result(other, suite="cs224n", sha256="23" * 32), result(COSINE, sha256="45" * 32))
    publish(tmp_path, result(SUM), profile="paper")
    pages = {one.profile: page(one) for one in read(tmp_path)}
    assert list(pages) == ["demo", "paper"]
    headings = [line for line in pages["demo"].splitlines() if line.startswith("#") and line.endswith("dev")]
    assert headings == [f"## demo: suite {suite}, content {digits * 6}, dev" for suite, digits in
                        (("cs224n", "23"), ("demo", "01"), ("demo", "45"))]
    assert pages["demo"].count("**0.900**") == 4
    assert pages["paper"].startswith("# Leaderboard: paper\n\n## paper: suite demo")
    assert [one.path for one in read(tmp_path / "paper")] == [tmp_path / "paper"]


def test_results_that_contradict_each_other_are_not_shown() -> None:
    changed = SUM.model_copy(update={"scores": scores((0.6, 0.75, 0.5, 0.7))})
    with pytest.raises(RegistryError, match=r"two results give `sum` .* different scores"):
        leaderboard([result(AVERAGE), result(changed)])


# ---------------------------------------------------------------------------------------------------- the JSON file

def test_a_result_is_the_same_after_a_round_trip_and_the_same_bytes() -> None:
    for tree in (ROUTE, AVERAGE, SUM):
        data = result(tree).to_json()
        assert Result.from_json(data, "r.json") == result(tree)
        assert Result.from_json(data, "r.json").to_json() == data
        assert json.loads(data)["format"] == 1
    assert list(json.loads(result(SUM).to_json())) == ["format", "profile", "suite", "sha256", "tasks", "tree"]
    assert json.loads(result(SUM).to_json())["tree"] == {
        "name": "sum", "id": "a" * 12, "kind": "leaf", "what": "sum, linear+pair+pair", "parameters": 1234,
        "scores": {"dev": {"sentiment": 0.5, "paraphrase": 0.75, "similarity": 0.5, "overall": 0.666667},
                   "test": {"sentiment": 0.4, "paraphrase": 0.7, "similarity": 0.45, "overall": 0.608333}}}


def broken(*path: str | int, to: object) -> bytes:
    """Return ROUTE's file with one value replaced, or taken out where `to` is ...."""
    whole = here = json.loads(result(ROUTE).to_json())
    for step in path[:-1]:
        here = here[step]
    if to is ...:
        del here[path[-1]]
    else:
        here[path[-1]] = to
    return json.dumps(whole).encode()


@pytest.mark.parametrize(("data", "said"), [
    (b"", "Invalid JSON"),
    (b"\xff\xfe", "Invalid JSON"),
    (b'{"a": 1', "Invalid JSON"),
    (b"[" * 100_000, "Invalid JSON"),
    (b"[1, 2]", "the file: Input should be an object"),
    (b"{}", "tree: Field required"),
    (b'{"name": "package", "version": "1.0"}', "tree: Field required"),
    (broken("format", to=2), "format: Input should be 1"),
    (broken("tree", "scores", "dev", "sentiment", to="0.5"), "sentiment: Input should be a valid number"),
    (broken("tree", "scores", "dev", "sentiment", to=float("nan")), "tree.scores.dev.sentiment"),
    (broken("tree", "scores", "dev", "sentiment", to=1e999), "tree.scores.dev.sentiment"),
    (broken("tree", "scores", "dev", "sentiment", to=51.3), "score 51.3 of eeeeeeeeeeee cannot be one of"),
    (broken("tree", "scores", "dev", "sentiment", to=...), "dev scores of eeeeeeeeeeee are not those"),
    (broken("tree", "scores", "dev", "toxicity", to=0.5), "dev scores of eeeeeeeeeeee are not those"),
    (broken("tree", "scores", "later", to={}), "later scores of eeeeeeeeeeee are not those"),
    (broken("tree", "id", to="../../x"), "tree.id: String should match"),
    (broken("tree", "kind", to="forest"), "tree.kind: Input should be 'leaf' or 'ensemble'"),
    (broken("tree", "kind", to="leaf"), "an ensemble has members and a leaf has none"),
    (broken("tree", "members", 1, "parameters", to=-1), "tree.members.1.parameters"),
    (broken("tree", "members", 0, "chosen", to=[2]), "tree.members.0: Value error, a chosen member is not there"),
    (broken("tree", "roles", to=["sentiment"]), "not as many roles as members"),
    (broken("tree", "pickle", to="x"), "tree.pickle: Extra inputs"),
])
def test_a_damaged_or_foreign_file_is_an_error_that_names_it(tmp_path: Path, data: bytes, said: str) -> None:
    publish(tmp_path, result(SUM))
    (tmp_path / "demo" / "wrong.json").write_bytes(data)
    (found,) = read(tmp_path)
    (problem,) = found.problems
    assert str(tmp_path / "demo" / "wrong.json") in problem.render() and said in problem.render()
    assert [result.tree.name for result in found.results] == ["sum"], "the others stay"


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_a_changed_byte_gives_a_result_or_our_own_error(position: int, byte: int) -> None:
    data = bytearray(result(ROUTE).to_json())
    data[position % len(data)] = byte
    try:
        Result.from_json(bytes(data), "r.json")
    except RegistryError as error:
        assert "r.json" in error.render()


def test_a_wrong_result_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="cannot be one of `sentiment`"):
        result(leaf("x", "1", (1.5, None, None, None)))
    with pytest.raises(ValidationError, match="are not those of the suite's tasks"):
        result(SUM, tasks=TASKS[:2])


def test_a_deep_tree_can_be_read_back() -> None:
    tree = SUM
    for depth in range(90):
        tree = ensemble(f"n{depth}", "0", "average of 1", (0.5, 0.75, 0.5, 0.666667), tree)
        tree = tree.model_copy(update={"id": f"{depth:012x}"})
    assert len(leaderboard([Result.from_json(result(tree).to_json(), "r")])) == 91


def test_a_folder_that_is_not_there_and_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no folder of results"):
        read(tmp_path / "absent")
    with pytest.raises(UsageError, match="no results"):
        read(tmp_path)
    (tmp_path / "demo" / "folder.json").mkdir(parents=True)
    os.mkfifo(tmp_path / "demo" / "pipe.json")
    (found,) = read(tmp_path)
    assert [problem.message.partition(": ")[0] for problem in found.problems] == [
        f"cannot read {tmp_path / 'demo' / name}" for name in ("folder.json", "pipe.json")]
    with pytest.raises(RegistryError, match=r"folder\.json"):
        text(tmp_path)


def test_a_result_that_is_removed_while_the_folder_is_read_is_no_problem(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_bytes(result(SUM).to_json())
    files = result_folder.result_files

    def slow(folder: Path) -> list[Path]:
        found = files(folder)
        (tmp_path / "a.json").unlink()
        return found

    monkeypatch.setattr(result_folder, "result_files", slow)
    found, problems = result_folder.read_files(tmp_path)
    assert [path.name for path in found] == ["b.json"] and not problems


@pytest.mark.parametrize("made", ["", "[", "[]", "[" * 200_000, '{"%s": {"seconds": 1, "made_of": 5}}',
                                  '{"%s": {"seconds": 1, "made_of": [["a"]]}}', '{"%s": {"seconds": "1"}}',
                                  '{"%s": {"device": 5}}', '{"%s": {"seconds": 1e999}}', '{"%s": 3}'])
def test_costs_that_make_no_sense_are_not_known(tmp_path: Path, made: str) -> None:
    publish(tmp_path, result(SUM))
    (tmp_path / "demo" / "costs.json").write_text(made.replace("%s", SUM.id))
    (row,) = json.loads(text(tmp_path, "json", columns="name,seconds,inference"))[0]["rows"]
    assert row == {"name": "sum", "seconds": None, "inference": None}
