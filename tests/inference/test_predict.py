"""Questions in any form, answers in any form, and memory that does not grow with their number."""

from __future__ import annotations

import bz2
import csv
import gc
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from systems import mtrun

from runner.errors import DataError, UsageError
from runner.inference import inputs
from runner.inference.inputs import PORTION, Input
from runner.inference.outputs import Answer
from runner.inference.system import System
from runner.plan.planner import make_plan
from runner.tasks.data import Task


def asked(text: str | bytes, form: str) -> list[Input]:
    data = text.encode() if isinstance(text, str) else text
    return list(inputs.read(io.BytesIO(data), "asked", form))


# Questions -----------------------------------------------------------------------------------------------------------


def test_forms_that_mean_the_same() -> None:
    pair, alone = ("A man eats.", 'He said "no", twice.'), ("Fine.",)
    lines = asked("A man eats. ||| He said \"no\", twice.\n\nA man eats.\tHe said \"no\", twice.\r\nFine.", "lines")
    assert [one.sentences for one in lines] == [pair, pair, alone]
    assert [one.id for one in lines] == ["1", "3", "4"], "ids are the numbers of lines"
    table = asked('\ufeffid,sentence1,sentence2\na,A man eats.,"He said ""no"", twice."\n', "csv")
    course = asked('\tid\tsentence1\tsentence2\tsimilarity\n0\ta\tA man eats.\t"He said ""no"", twice."\t1.0\n', "csv")
    unnamed = asked('id\tsentence1\tsentence2\n0\ta\tA man eats.\t"He said ""no"", twice."\n', "csv")
    objects = asked(json.dumps({"id": "a", "sentence1": pair[0], "sentence2": pair[1]}) + "\n\n", "jsonl")
    assert table == course == unnamed == objects == [Input("a", pair)]
    assert asked('{"sentence": "Fine.", "task": "sentiment"}', "jsonl") == [Input("1", alone, ("sentiment",))]
    assert asked("sentence\nFine.\n", "csv") == [Input("1", alone)]


@pytest.mark.parametrize(("text", "form", "line", "message"), [
    (b"fine\n\xff\xfe\n", "lines", 2, "not UTF-8 at byte 1"),
    ("a|||b|||c\n", "lines", 1, "3 sentences"),
    (b"x" * ((1 << 20) + 1), "lines", 1, "a line of over 1,048,576 characters"),
    ("id,sentance\n1,x\n", "csv", 1, "no column `sentence`"),
    ("id,sentence\n1,x,y,z\n", "csv", 2, "row has 4 cells, where the header has 2"),
    (b"id,sentence\n1,caf\xe9\n", "csv", 2, "not UTF-8 at byte 6"),
    (b"\x1f\x8b\x08", "lines", 0, "compressed and damaged"),
    ('[{"sentence": "a"}, 3]', "jsonl", 1, "item 2 of the list is not a JSON object"),
    ('{"sentence": "x"}\nnope\n', "jsonl", 2, "not JSON"),
    ('["x"]\n', "jsonl", 1, "not a JSON object"),
    ("[" * 100_000 + "\n", "jsonl", 1, "not JSON"),
    ('{"sentence": 3}\n', "jsonl", 1, "must be text"),
    ('{"text": "x"}\n', "jsonl", 1, "no `sentence`"),
])
def test_what_is_no_question_is_named_with_its_line(text: str | bytes, form: str, line: int, message: str) -> None:
    with pytest.raises(DataError) as raised:
        asked(text, form)
    (problem,) = raised.value.problems
    assert message in problem.message and problem.place and problem.place.line == line


def test_halves_of_characters_are_replaced() -> None:
    (one,) = asked('{"sentence": "a\\ud800b", "id": "\\udfff"}', "jsonl")
    assert one == Input("?", ("a?b",))


@given(st.lists(st.integers(0, 400_000), max_size=30))
def test_portions_are_bounded_and_lose_nothing(sizes: list[int]) -> None:
    made = [Input(str(number), ("x" * size,)) for number, size in enumerate(sizes)]
    portions = list(inputs.portions(made))
    assert [one for portion in portions for one in portion] == made
    for portion in portions:
        assert 0 < len(portion) <= PORTION
        assert sum(one.size for one in portion[:-1]) <= inputs.CHARACTERS


# Answers -------------------------------------------------------------------------------------------------------------


def test_labels_and_probabilities() -> None:
    binary = Task(title="B", kind="binary", sentences=2)
    assert [Answer("b", binary, (logit,)).label for logit in (-1.0, 0.0, 1.0)] == [0, 0, 1]
    assert Answer("b", binary, (np.log(3.0),)).probabilities == (0.25, 0.75)
    assert Answer("b", binary, (-1e30,)).probabilities == (1.0, 0.0)
    three = Task(title="C", kind="classification", classes=3)
    answer = Answer("c", three, (0.0, float(np.log(2.0)), float(np.log(5.0))))
    assert answer.label == 2 and answer.probabilities == (0.125, 0.25, 0.625)
    scale = Answer("r", Task(title="R", kind="regression", high=5.0, sentences=2), (5.25,))
    assert scale.label == 5.25 and scale.probabilities == ()


def system(root: Path, spec: str = "deep") -> System:
    plan = make_plan(root, [root / "specs" / f"{spec}.toml"], "demo")
    return System(plan, plan.roots[spec])


def test_members_that_have_a_part_are_shown_with_what_they_say(trained: Path) -> None:
    one = system(trained)
    said = list(one.answers([Input("x", ("A man eats.", "A man sleeps."))], members=True))
    paraphrase, similarity = said[0].answers
    (rule,) = paraphrase.members
    (chosen,) = rule.members
    assert rule.name == "best of 2 by paraphrase" and chosen.name in ("sum", "pcgrad")
    assert rule.scores == chosen.scores == paraphrase.scores
    (mean,) = similarity.members
    assert [leaf.name for leaf in mean.members] == ["sum", "pcgrad"]
    assert similarity.scores[0] == pytest.approx(np.mean([leaf.scores[0] for leaf in mean.members]), abs=1e-6)


def test_questions_that_no_task_takes(trained: Path) -> None:
    one = system(trained)
    with pytest.raises(UsageError, match="question x has 2 sentences for sentiment, but sentiment takes 1"):
        list(one.answers([Input("x", ("a", "b"), ("sentiment",))]))
    with pytest.raises(UsageError, match=r"does not predict `sentimnt`.*did you mean `sentiment`"):
        list(one.answers([], tasks=["sentimnt"]))


def endless(count: int) -> Iterator[Input]:
    for number in range(count):
        yield Input(str(number), (f"The film is {number % 97} times good and {number % 89} times bad.",))


def collected(inputs: Iterator[Input]) -> Iterator[Input]:
    """Yield questions and collect garbage before each portion: when Python does depends on all that the process did."""
    for number, question in enumerate(inputs):
        if number % PORTION == 0:
            gc.collect()
        yield question


def most_memory(one: System, count: int) -> int:
    """Return the most bytes that Python held while so many questions were answered, without garbage."""
    gc.collect()
    tracemalloc.start()
    answered = sum(len(said.answers) for said in one.answers(collected(endless(count))))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert answered == count
    return most


def test_memory_does_not_grow_with_the_questions(trained: Path) -> None:
    one = system(trained, "sum")
    most_memory(one, PORTION)
    few, many = most_memory(one, 2 * PORTION), most_memory(one, 8 * PORTION)
    assert many < 1.1 * few


@pytest.mark.long
def test_a_million_lines_in_bounded_memory(trained: Path) -> None:
    script = ("import resource, sys; from runner.cli import cli; sys.argv[0] = 'mtrun'\n"
              "try: cli(['predict', 'specs/sum.toml', '--format', 'csv'])\n"
              "except SystemExit: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)")

    def kilobytes(count: int) -> int:
        """Return the most memory of a process that answers so many lines."""
        text = "".join(f"{question.sentences[0]}\n" for question in endless(count))
        done = subprocess.run([sys.executable, "-c", script], cwd=trained, input=text, capture_output=True, text=True)
        assert len(done.stdout.splitlines()) == count + 1
        return int(done.stderr)

    assert kilobytes(1_000_000) < kilobytes(10_000) + 50_000


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_answers_in_every_form(trained: Path) -> None:
    text = mtrun(trained, "predict", "specs/deep.toml", "A fine film.", "--pair", "A man.", "A dog.", "--members")
    assert text.code == 0 and text.out.startswith("A fine film.\n  Sentiment ")
    assert "A man.  |  A dog.\n  Paraphrase" in text.out and "    best of 2 by paraphrase" in text.out
    lines = "A fine film.\nA man. ||| A dog.\n"
    objects = mtrun(trained, "predict", "specs/deep.toml", "--format", "json", text=lines)
    first, second = map(json.loads, objects.out.splitlines())
    assert first["sentence"] == "A fine film." and list(first["answers"]) == ["sentiment"]
    assert sum(first["answers"]["sentiment"]["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert list(second["answers"]) == ["paraphrase", "similarity"]
    table = mtrun(trained, "predict", "specs/deep.toml", "-i", "-", "--format", "csv", text=lines)
    rows = list(csv.DictReader(io.StringIO(table.out)))
    assert [(row["id"], row["task"]) for row in rows] == [("1", "sentiment"), ("2", "paraphrase"), ("2", "similarity")]
    assert int(rows[0]["label"]) == first["answers"]["sentiment"]["label"]
    assert float(rows[2]["score_0"]) == pytest.approx(second["answers"]["similarity"]["scores"][0], abs=1e-5)


def test_a_conversation_goes_on_after_a_mistake(trained: Path) -> None:
    done = mtrun(trained, "predict", "specs/sum.toml", "--interactive", text="A fine film.\na ||| b ||| c\nBad.\n\n")
    assert done.code == 0 and done.err.count("error: ") == 1
    assert [line for line in done.out.splitlines() if not line.startswith(" ")] == ["A fine film.", "Bad."]


@pytest.mark.parametrize(("arguments", "message"), [
    (["specs/sum.toml", "x", "-i", "y.csv"], "give sentences or a file, not both"),
    (["specs/sum.toml", "-i", "none.csv"], "cannot read none.csv"),
    (["specs/sum.toml", "x", "--node", "men"], "no node `men`"),
    (["specs/none.toml", "x"], "no file"),
])
def test_what_cannot_be_meant(trained: Path, arguments: list[str], message: str) -> None:
    done = mtrun(trained, "predict", *arguments)
    assert done.code in (1, 2) and message in done.err and "Traceback" not in done.err


def test_another_node_can_be_asked(trained: Path) -> None:
    done = mtrun(trained, "predict", "specs/deep.toml", "--node", "pcgrad", "x", "--format", "json")
    alone = mtrun(trained, "predict", "specs/pcgrad.toml", "x", "--format", "json")
    assert done.out == alone.out and done.code == 0


def test_questions_may_be_compressed_or_a_parquet_file(tmp_path: Path) -> None:
    rows = pd.DataFrame({"id": ["a", "b"], "sentence1": ["one", "two"], "sentence2": ["three", "four"], "n": [[1], []]})
    wanted = [Input("a", ("one", "three")), Input("b", ("two", "four"))]
    rows.to_parquet(tmp_path / "asked.parquet")
    rows.drop(columns="n").to_csv(tmp_path / "asked.csv.gz", index=False)
    rows.to_json(tmp_path / "asked.jsonl.xz", orient="records", lines=True)
    for name in ("asked.parquet", "asked.csv.gz", "asked.jsonl.xz"):
        assert list(inputs.of_file(str(tmp_path / name))) == wanted, name
    (tmp_path / "lines.txt.bz2").write_bytes(bz2.compress(b"one ||| three\n"))
    assert list(inputs.of_file(str(tmp_path / "lines.txt.bz2"))) == [Input("1", ("one", "three"))]
