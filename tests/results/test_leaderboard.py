"""The formats and options of `mtrun table`: each read back by an independent parser."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from folders import text
from result_trees import AVERAGE, COSINE, ROUTE, SST, SUM, ensemble, leaf, publish, result, scores

from runner.cli.app import cli
from runner.errors import UsageError
from runner.results.formats import FORMATS
from runner.results.result import COSTS, Column

HARD = leaf("a&b_<i>|$%#{x}~^\\", "8", (0.1, 0.1, 0.1, 0.25))
POINTS = [leaf(name, digit, (x, 0.5, 0.0, (x + 1) / 3), (x - 0.1, None, None, None)) for name, digit, x in (
    ("sw@lr=1.0,seed=1", "1", 0.5), ("sw@lr=1.0,seed=2", "2", 0.6), ("sw@lr=1.0,seed=3", "3", 0.7),
    ("sw@lr=2.0,seed=1", "4", 0.4), ("sw@lr=2.0,seed=2", "5", 0.4), ("one@seed=7", "6", 0.1))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path, result(ROUTE), result(AVERAGE), result(SUM), result(HARD))


def rows(folder: Path, **options: str) -> list[dict]:
    (sheet,) = json.loads(text(folder, "json", **options))
    found: list[dict] = sheet["rows"]
    return found


def names(folder: Path, **options: str) -> list[str]:
    return [row["name"] for row in rows(folder, **options)]


# ------------------------------------------------------------------------------------------------------------- formats

def test_the_command_has_all_formats_and_no_others() -> None:
    (option,) = [option for option in cli.commands["table"].params if option.name == "style"]
    assert list(option.type.choices) == list(FORMATS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("style", FORMATS)
def test_every_format_is_the_same_bytes_each_time_and_ends_in_one_line(folder: Path, style: str) -> None:
    made = text(folder, style)
    assert made == text(folder, style) and made.endswith("\n") and not made.endswith("\n\n")
    assert not re.search(r"[ \t]$", made, re.M)


def test_csv_has_the_full_numbers(folder: Path) -> None:
    listed = list(csv.DictReader(io.StringIO(text(folder, "csv"))))
    (row,) = [row for row in listed if row["name"] == "sum"]
    assert float(row["overall"]) == 0.666667 and row["parameters"] == "1234" and row["split"] == "dev"
    assert {row["name"] for row in listed} == {"ensemble2", "ensemble3", "cosine_mse", "sum", "sst|only", HARD.name}
    assert [row["overall"] for row in listed if row["name"] == "ensemble2"] == [""]


def test_csv_of_several_suites_is_one_table(folder: Path) -> None:
    one = SUM.model_copy(update={"name": "solo", "id": "9" * 12, "scores": {"dev": {"toxicity": 0.5, "overall": 0.5}}})
    tasks = (Column(name="toxicity", title="T", kind="binary"),)
    publish(folder, result(one, suite="x", sha256="23" * 32, tasks=tasks))
    listed = {row["name"]: row for row in csv.DictReader(io.StringIO(text(folder, "csv")))}
    assert listed["solo"]["toxicity"] == "0.5" and listed["solo"]["sentiment"] == ""
    assert listed["sum"]["toxicity"] == "" and listed["sum"]["suite"] == "demo"


def test_json_has_the_values_and_what_they_belong_to(folder: Path) -> None:
    (sheet,) = json.loads(text(folder, "json"))
    assert {key: sheet[key] for key in ("profile", "suite", "sha256", "split")} == {
        "profile": "demo", "suite": "demo", "sha256": "01" * 32, "split": "dev"}
    (row,) = [row for row in sheet["rows"] if row["name"] == "ensemble3"]
    assert row["kind"] == "ensemble" and row["members"] == "sum, cosine_mse" and row["sentiment"] == 0.4996


class Table(HTMLParser):
    """Collects the cells of a table."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.is_inside = False
        self.tags: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.is_inside = tag in ("td", "th", "b")

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = self.is_inside and tag == "b"

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.rows[-1][-1] += data


def test_html_shows_the_same_as_markdown_and_any_name_as_it_is(folder: Path) -> None:
    table = Table(text(folder, "html"))
    plain = [line for line in text(folder, "plain").splitlines() if line.startswith(("ensemble3", "a&b"))]
    assert table.rows[0] == ["name", "SST", "Quora", "STS", "overall", "overall 95 %"]
    assert [cell.lstrip("> ") for cell in re.split(r"\s{2,}", plain[0])] == table.rows[1]
    assert HARD.name in [row[0] for row in table.rows] and "i" not in table.tags


def test_latex_has_no_sign_that_means_something_else(folder: Path) -> None:
    made = text(folder, "latex")
    (line,) = [line for line in made.splitlines() if line.startswith(" a")]
    cells = [cell.strip() for cell in re.split(r"(?<!\\)&", line)]
    assert cells == [r"a\&b\_\textless{}i\textgreater{}\textbar{}\$\%\#\{x\}\textasciitilde{}\textasciicircum{}"
                     r"\textbackslash{}", "0.100", "0.100", "0.100", "0.250", r"--- \\"]
    body = made.split("\\midrule\n")[1].split("\\bottomrule")[0]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines()} == {5}
    assert r"\begin{tabular}{lrrrrr}" in made and r"\textbf{0.675}" in made


# ------------------------------------------------------------------------------------------------------------- options

def test_a_group_is_given_by_patterns_of_names(folder: Path) -> None:
    assert names(folder, group="ensemble?") == ["ensemble3", "ensemble2"]
    assert names(folder, group="sum cos* sum") == ["cosine_mse", "sum"]
    with pytest.raises(UsageError, match=r"no system is called `ensmble3`. did you mean `ensemble3`"):
        text(folder, group="sum ensmble3")


def test_the_best_of_a_group_is_that_of_the_group(folder: Path) -> None:
    assert "**0.667**" in text(folder, group="sum") and "**0.667**" not in text(folder)


def test_columns_are_named_added_or_all(folder: Path) -> None:
    assert list(rows(folder, columns="overall,name")[0]) == ["overall", "name"]
    first = text(folder, columns="+parameters").splitlines()[2]
    assert [cell.strip() for cell in first.strip("|").split("|")] == [
        "name", "SST", "Quora", "STS", "overall", "overall 95 %", "parameters"]
    assert set(rows(folder, columns="all")[0]) > set(rows(folder)[0])
    with pytest.raises(UsageError, match=r"no column `overal`; there are: name, .*did you mean `overall`"):
        text(folder, columns="name,overal")


def test_scores_are_sorted_from_the_highest_and_all_else_from_the_lowest(folder: Path) -> None:
    assert names(folder, sort="sentiment", group="sum cosine_mse sst|only") == ["sst|only", "sum", "cosine_mse"]
    assert names(folder, sort="name", group="sum cosine_mse sst|only") == ["cosine_mse", "sst|only", "sum"]
    assert names(folder, sort="parameters", group="sum cosine_mse") == ["sum", "cosine_mse"], "unknown is last"
    with pytest.raises(UsageError, match="no column `size`"):
        text(folder, sort="size")


def test_test_scores_are_those_of_the_systems_that_have_some(folder: Path) -> None:
    found = {row["name"]: row["overall"] for row in rows(folder, split="test")}
    assert found == {"sum": 0.608333, "cosine_mse": 0.616667}
    assert ", test" in text(folder, split="test").splitlines()[0]
    with pytest.raises(UsageError, match=r"no system of `sst\|only` has scores on test"):
        text(folder, split="test", group="sst|only")


def test_costs_are_those_of_all_models_of_a_system(folder: Path) -> None:
    (folder / "demo" / COSTS).write_text(json.dumps({
        SUM.id: {"seconds": 10.5, "inference": 0.25, "device": "cpu"}, COSINE.id: {"seconds": 20, "device": "cpu"}}))
    found = {row["name"]: row for row in rows(folder)}
    assert [found[name]["seconds"] for name in ("sum", "cosine_mse", "ensemble3", "sst|only")] == [10.5, 20, 30.5, None]
    assert found["sum"]["inference"] == 0.25 and found["ensemble3"]["inference"] is None
    twice = ensemble("twice", "9", "average of 2", (0.5, 0.75, 0.5, 0.666667), SUM, SUM)
    publish(folder, result(twice))
    (row,) = rows(folder, group="twice")
    assert row["seconds"] == 10.5 and row["parameters"] == 1234, "a model that is there twice is trained once"
    (folder / "demo" / COSTS).write_text("[]")
    assert rows(folder, group="sum")[0]["seconds"] is None


def test_honest_scores_are_shown_and_ranked_by(folder: Path) -> None:
    honest = dict(zip(("sentiment", "paraphrase", "similarity", "overall"), (0.45, 0.7, 0.5, 0.633333), strict=True))
    publish(folder, result(ensemble("greedy", "9", "greedy", (0.6, 0.8, 0.9, 0.783333), SUM, COSINE, apparent=True,
                                    honest=honest)))
    found = {row["name"]: row for row in rows(folder)}
    assert found["greedy"]["overall"] == 0.633333 and found["greedy"]["overall.apparent"] == 0.783333
    assert names(folder, group="greedy sum cosine_mse") == ["cosine_mse", "sum", "greedy"]
    made = text(folder)
    assert "overall apparent" in made and "cross-fitted" in made and "**0.675**" in made
    assert "apparent" not in text(folder, split="test")
    assert r"greedy\*" not in made and r"sst\|only\*" in made


# --------------------------------------------------------------------------------------------------------------- seeds

def test_the_points_of_a_seed_sweep_have_a_row_of_their_mean_and_deviation(tmp_path: Path) -> None:
    publish(tmp_path, *map(result, POINTS))
    found = {row["name"]: row for row in rows(tmp_path)}
    assert set(found) - {point.name for point in POINTS} == {"sw@lr=1.0 over 3 seeds", "sw@lr=2.0 over 2 seeds"}
    three = found["sw@lr=1.0 over 3 seeds"]
    assert three["sentiment"] == pytest.approx(0.6) and three["seeds"] == 3
    made = text(tmp_path)
    assert "0.600 ± 0.100" in made and "0.400 ± 0.000" in made and "standard deviation over the seeds" in made
    assert "**0.600" not in made, "a mean is no system that can be the best"
    assert "sw@lr=1.0 over 3 seeds" in names(tmp_path, group="sw@lr=1.0,*")
    assert names(tmp_path, group="sw@lr=1.0,seed=2") == ["sw@lr=1.0,seed=2"]
    assert "over 2 seeds" in "".join(names(tmp_path, group="*seed=1 *seed=2"))


def test_a_score_that_one_seed_lacks_has_no_mean(tmp_path: Path) -> None:
    lacking = POINTS[1].model_copy(update={"scores": scores((None, 0.5, 0.0, None))})
    publish(tmp_path, result(POINTS[0]), result(lacking))
    (row,) = [row for row in rows(tmp_path) if "over" in row["name"]]
    assert row["sentiment"] is None and row["paraphrase"] == 0.5


# ------------------------------------------------------------------------------------------------------------- command

def test_the_command_prints_a_table_and_writes_the_page(folder: Path) -> None:
    options = ["--format", "plain", "--group", "sum", "--columns", "name,overall"]
    done = CliRunner().invoke(cli, ["table", str(folder), *options])
    assert done.exit_code == 0 and done.output.splitlines()[4].split() == ["sum", ">", "0.667"]
    page = (folder / "demo" / "leaderboard.md").read_text()
    assert "ensemble3" in page and ", test" in page and SST.what in page
    before = (folder / "demo" / "leaderboard.md").stat().st_mtime_ns
    CliRunner().invoke(cli, ["table", str(folder / "demo")])
    assert (folder / "demo" / "leaderboard.md").stat().st_mtime_ns == before


# ---------------------------------------------------------------------------------------------------------------- docs

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text()
SPECS = Path(__file__).parents[2] / "specs"


def test_each_table_of_the_paper_is_one_command(tmp_path: Path) -> None:
    """Every system of the paper is in the table that the page says, and there is nothing else in it."""
    found = [path.stem for folder in ("", "models", "baseline") for path in (SPECS / folder).glob("*.toml")]
    found += ["sum-lr@lr_scale=1.0", "best-overall"]
    publish(tmp_path, *(result(leaf(name, "0", (0.5, 0.5, 0.5, 0.5)).model_copy(update={"id": f"{i:012x}"}))
                        for i, name in enumerate(found)))
    shown = []
    for command in re.findall(r"^mtrun table results/ (.*?) *#", PAGE, re.M):
        done = CliRunner().invoke(cli, ["table", str(tmp_path), "--sort", "name", *shlex.split(command)])
        shown.append([re.split(r"\s*\|\s*", line)[1] for line in done.output.splitlines() if line.startswith("| ")][1:])
    assert shown == [
        ["full-cfimdb", "full-sst", "last-cfimdb", "last-sst"], ["mean", "mean-dropout", "pcgrad", "sum"],
        ["cosine-bce", "cosine-embedding", "cosine-mse"], ["sum-lr@lr_scale=1.0"],
        [f"ensemble{n}" for n in range(1, 8)]]


def test_the_page_tells_of_every_option_and_column(folder: Path) -> None:
    options = [option.opts[0] for option in cli.commands["table"].params if option.opts[0].startswith("--")]
    assert set(re.findall(r"^\| `(--[a-z]+)", PAGE, re.M)) == set(options)
    told = set(re.findall(r"`([a-z.]+)`", PAGE))
    keys = {key if "." not in key else f".{key.split('.')[1]}" for key in rows(folder, columns="all")[0]}
    assert {key for key in keys if key not in told and f"overall{key}" not in told} <= {
        "sentiment", "paraphrase", "similarity"}
