"""The docs are true: commands give what they show, specs in them load, the reference is that of the code.

To take over new answers into the pages: MTRUN_WRITE_DOCS=1 python -m pytest tests/end_to_end/test_docs.py -m ''
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner.cli import reference, scaffold
from runner.cli.app import cli
from runner.cli.schema import Schemas
from runner.part import Part
from runner.parts.adapters import Adapter
from runner.parts.combiners import Combiner
from runner.parts.discovery import documented, family, find, names
from runner.parts.encoders import Encoder
from runner.parts.ensembles import Ensemble
from runner.parts.heads import Head
from runner.parts.losses import Loss
from runner.parts.optimizers import Optimizer
from runner.parts.regularizers import Regularizer
from runner.parts.schedules import Schedule
from runner.parts.suites import Suite
from runner.specs.loader import Loader
from runner.worker.executors import Executor

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE, MARK, REFERENCE = (DOCS / "specs.md").read_text().partition(reference.MARK)
FAMILIES = (Suite, Encoder, Adapter, Head, Loss, Combiner, Optimizer, Schedule, Regularizer, Ensemble, Executor)

# The walk-through ----------------------------------------------------------------------------------------------------

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)


def commands(block: str) -> list[tuple[str, str]]:
    """Return the commands of a block of a terminal, lines of a longer one joined, each with the answer shown."""
    found: list[list[str]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append([line[2:], ""])
        elif re.match(r">( |$)", line) and not found[-1][1]:
            found[-1][0] += "\n" + line[2:]
        else:
            found[-1][1] += line + "\n"
    return [(command, answer) for command, answer in found]


def written(command: str, answer: str) -> str:
    """Return a command and its answer as the page shows them."""
    first, *more = command.split("\n")
    return "".join(f"{line}\n" for line in [f"$ {first}", *(f"> {line}".rstrip() for line in more)]) + answer


def answered(command: str, folder: Path) -> str:
    """Run a command as a terminal of the width of a page would and return what it prints."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                                "COLUMNS": "120", "OMP_NUM_THREADS": "1", "LC_ALL": "C"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.stdout


def normal(text: str) -> list[str]:
    """Return an answer's lines without what differs between machines: ids, scores, times, cores, widths, ranks."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "ID", text)
    text = re.sub(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:+]+", "TIME", text)
    text = re.sub(r"\b[0-9.]+ ?(s|min|h|kB|MB)\b", "N", text)
    text = re.sub(r"(\*\*)?-?\b[0-9]+\.[0-9]+\b(\*\*)?", "N", text)
    text = re.sub(r"-j [0-9]+", "-j N", text)
    text = re.sub(r"\b[0-9]+%|[▁▂▃▄▅▆▇█░]+", "N", text)
    lines = [re.sub(r"[ :-]{2,}", " ", line).strip() for line in text.splitlines()]
    ranked = [line for line in lines if line.startswith(("| ", "ID "))]
    return [line for line in lines if line not in ranked] + sorted(ranked)


@pytest.mark.parametrize(("name", "made_last"), [
    ("walkthrough", "trial/results/demo/both@epochs=1,suite.train=200.json"),
    pytest.param("predict", "trial/sum/transformers/config.json", marks=pytest.mark.long),
])
def test_a_walk_answers_as_the_page_says(tmp_path: Path, name: str, made_last: str) -> None:
    path, here = DOCS / f"{name}.md", [tmp_path]
    page = path.read_text()

    def walked(block: re.Match[str]) -> str:
        """Return a block with the answers that come."""
        made = ""
        for command, _ in commands(block[1]):
            made += written(command, answered(command, here[-1]))
            here.append(here[-1] / command[3:] if command.startswith("cd ") else here[-1])
        return block[0].replace(block[1], made)

    true = BLOCK.sub(walked, page)
    if os.environ.get("MTRUN_WRITE_DOCS"):
        path.write_text(true)
    assert [normal(block) for block in BLOCK.findall(page)] == [normal(block) for block in BLOCK.findall(true)]
    assert (tmp_path / made_last).is_file()
    for code in PYTHON.findall(page):
        done = answered(f"python - <<'END'\n{code}\nEND", here[-1])
        assert "Error" not in done, done


def test_the_python_page_runs(trained: Path) -> None:
    """Run the blocks of a page one after another, as cells of a notebook would be."""
    page = (DOCS / "python.md").read_text().replace("specs/ensemble.toml", "specs/deep.toml")
    cells = PYTHON.findall(page)
    shown = "\n".join(re.sub(r"\n([^\n]+)\n\Z", r"\nprint(\1)\n", f"\n{cell}") for cell in cells[1:])
    done = answered(f"python - <<'END'\n{cells[0]}{shown}\nEND", trained)
    assert len(cells) == 4 and "Error" not in done, done
    for word in ("It was a weak film.", "paraphrase", "label", "deep", "pcgrad"):
        assert word in done


# Specs in the pages --------------------------------------------------------------------------------------------------


def specs_of(page: str) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```$", page, re.M | re.S)


FIRST = (DOCS / "first-spec.md").read_text()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project that the first page makes of its three files; tests add specs of their own names."""
    folder = tmp_path_factory.mktemp("first")
    (script,) = PYTHON.findall(FIRST)
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
    (block,) = re.findall(r"^```sh\n(mtrun init .*?)^```$", FIRST, re.M | re.S)
    assert answered(block.splitlines()[0], folder).startswith("made mine")
    return folder / "mine"


@pytest.mark.long
def test_the_first_page_goes_from_files_to_predictions(own: Path) -> None:
    (block,) = re.findall(r"^```sh\n(mtrun init .*?)^```$", FIRST, re.M | re.S)
    lines = block.splitlines()
    assert lines[1] == "cd mine"
    said = {line.split()[1]: answered(f"{line.partition('#')[0]} || echo FAILED", own) for line in lines[2:]}
    assert list(said) == ["data", "plan", "build", "table", "report", "predict"]
    assert "FAILED" not in "".join(said.values()), said
    assert "films (Films): one of 3 classes" in said["data"] and "1 to train" in said["plan"]
    assert "| first " in said["table"] and (own / "results" / "report.html").is_file()
    assert re.search(r"Films +good", said["predict"]) and re.search(r"Questions +(yes|no)", said["predict"])


def test_the_specs_of_the_first_page_load(own: Path) -> None:
    named = re.findall(r"`(specs/[\w.-]+)`:\n\n```toml\n(.*?)^```$", FIRST, re.M | re.S)
    assert [name for name, _ in named] == ["specs/careful.toml", "specs/seeds.toml", "specs/both.toml"]
    assert [text for _, text in named] == specs_of(FIRST)
    for name, text in named:
        (own / name).write_text(text)
    loaded = {name: Loader(own).load(own / name) for name, _ in named}
    assert [node.name for node in loaded["specs/seeds.toml"]] == ["seeds@seed=1", "seeds@seed=2", "seeds@seed=3"]
    (both,) = loaded["specs/both.toml"]
    assert both.ensemble.summary() == "average of 4"  # type: ignore[union-attr]


@pytest.mark.parametrize("row", re.findall(r"^\| .*? \| (.*) \|$", FIRST.partition("## Change it")[2], re.M)[1:-1])
def test_what_the_first_page_tells_to_write_loads(own: Path, row: str) -> None:
    above, pieces = re.match(r"(?:under `(\[.*\])`: )?", row), re.findall(r"`([^`]*=[^`]*)`", row)
    assert above and pieces
    pieces = [piece.replace("\\|", "|") for piece in pieces]
    lines = ['kind = "model"', 'extends = "first.toml"', above[1] or "", *pieces]
    (own / "specs" / "own.toml").write_text("\n".join(lines))
    assert Loader(own).load(own / "specs" / "own.toml")


OWN_HEAD = '[heads.sentiment]\ntype = "linear"\nloss = "cross_entropy"'


def test_the_specs_of_the_guide_load(tmp_path: Path) -> None:
    scaffold.init(tmp_path, {})
    head, rates, named, tree, suite, metrics = specs_of(GUIDE)
    texts = {"head": f'kind = "model"\nextends = "base.toml"\n{head}', "rates": rates, "named": named, "tree": tree}
    for name, text in texts.items():
        (tmp_path / "specs" / f"{name}.toml").write_text(text)
    (tmp_path / "specs" / "suites" / "reviews.toml").write_text(suite + metrics)
    texts["own"] = f'kind = "model"\nsuite = "suites/reviews.toml"\n{OWN_HEAD}'
    (tmp_path / "specs" / "own.toml").write_text(texts["own"])
    nodes = {name: [n.name for n in Loader(tmp_path).load(tmp_path / "specs" / f"{name}.toml")] for name in texts}
    assert len(nodes["rates"]) == 6 and "rates@lr_scale=1.0,seed=2" in nodes["rates"]
    assert nodes["named"] == ["named@gentle", "named@strict"]
    assert [nodes[name] for name in ("tree", "head", "own")] == [["tree"], ["head"], ["own"]]


def test_the_error_of_the_first_page_is_the_one_that_comes(own: Path) -> None:
    (own / "specs" / "careful.toml").write_text(specs_of(FIRST)[0].replace("dropout", "drpout"))
    shown = re.findall(r"^```text\n(.*?)^```$", FIRST, re.M | re.S)[-1]
    assert answered("mtrun check specs/careful.toml", own) == shown


# The reference -------------------------------------------------------------------------------------------------------


def test_the_reference_is_that_of_the_code() -> None:
    page = (DOCS / "specs.md").read_text()
    assert MARK and reference.page(page, Schemas(ROOT)) == page, "out of date: run `mtrun schema --write`"


@pytest.mark.parametrize("base", FAMILIES, ids=lambda base: base.__name__)
def test_every_part_and_option_is_in_it(base: type[Part]) -> None:
    (section,) = re.findall(rf"^## {family(base).capitalize()}\n(.*?)(?=^## |\Z)", REFERENCE, re.M | re.S)
    parts = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^### |\Z)", section, re.M | re.S))
    assert sorted(parts) == names(base)
    for name, text in parts.items():
        cls = find(base, name)
        assert cls and cls.__doc__
        assert " ".join(cls.__doc__.split()) in " ".join(text.split())
        rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text.partition("####")[0], re.M))
        assert list(rows) == list(cls.model_fields)
        for key, field in documented(cls).items():
            assert " ".join((field.description or "").replace("|", "\\|").split()) in rows[key]
            assert ("| required |" in rows[key]) == field.is_required()


def test_a_page_without_the_mark_is_left_alone() -> None:
    assert reference.page("# Mine\n", Schemas()) == "# Mine\n"


# Commands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name)
def test_commands_and_options_are_there(path: Path) -> None:
    for line in re.findall(r"^(?:\$ )?(mtrun [a-z].*)$", path.read_text(), re.M):
        for part in re.split(r"&&|\|", line.partition("#")[0]):
            program, name, *words = part.split()
            if program == "cd":
                continue
            assert name in cli.commands, line
            known = {option for parameter in cli.commands[name].params for option in parameter.opts}
            assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= known | {"-h"}, line


# Links ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), target
    for page, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", path.read_text()):
        headings = re.findall(r"^#+ (.*)$", (path.parent / page if page else path).read_text(), re.M)
        assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor
