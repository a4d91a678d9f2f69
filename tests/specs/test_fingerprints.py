"""Hashes of code: what changes them and what does not, and runs of versions that recorded hashes of texts."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from projects import project
from runs import finish, leaf, planned

from runner.parts.discovery import code_hash
from runner.specs import identity
from runner.specs.identity import fingerprints, sources
from runner.specs.spec import Leaf

CODE = '''"""Module."""

from torch import relu as act

from .x import y


class A:
    """Docstring."""

    field: int = 3
    """What the field is."""

    def f(self, a: int) -> int:
        """Return something."""
        text = "a string"
        return a + 1  # a comment
'''
SAME = {"comment": ("# a comment", "# another"), "docstring": ("Return something.", "Compute something."),
        "attribute's docstring": ("What the field is.", "A number."),
        "own import": ("from .x import y", "from runner.heads import y"),
        "layout": ("a + 1", "(a  +\n                1)"), "no docstring": ('    """Docstring."""\n', "")}
OTHER = {"operator": ("a + 1", "a - 1"), "constant": ("= 3", "= 4"), "type of constant": ("= 3", "= 3.0"),
         "string": ('"a string"', '"another"'), "name": ("def f", "def g"), "annotation": ("a: int", "a: float"),
         "order": ("a + 1", "1 + a"), "bytes": ('"a string"', 'b"a string"'),
         "foreign import": ("relu as act", "gelu as act")}


@pytest.mark.parametrize(("one", "other"), [
    ("{**a, 'x': c}", "{'x': a, **c}"), ("def f(*, a, b=1): pass", "def f(*, a=1, b): pass")])
def test_what_is_left_out_has_its_place(tmp_path: Path, one: str, other: str) -> None:
    assert hash_of(tmp_path, one) != hash_of(tmp_path, other)


def hash_of(folder: Path, text: str) -> str:
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"
    path.write_text(text)
    return code_hash(path)


@pytest.mark.parametrize("change", SAME)
def test_what_computes_nothing_changes_no_hash(tmp_path: Path, change: str) -> None:
    changed = CODE.replace(*SAME[change])
    assert changed != CODE and hash_of(tmp_path, changed) == hash_of(tmp_path, CODE)


@pytest.mark.parametrize("change", OTHER)
def test_what_computes_something_changes_the_hash(tmp_path: Path, change: str) -> None:
    changed = CODE.replace(*OTHER[change])
    assert changed != CODE and hash_of(tmp_path, changed) != hash_of(tmp_path, CODE)


@given(st.sampled_from([node for node in ast.walk(ast.parse(CODE)) if isinstance(node, ast.Name | ast.arg)]))
def test_every_name_counts(node: ast.Name | ast.arg) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        lines = CODE.split("\n")
        at, text = node.col_offset, lines[node.lineno - 1]
        lines[node.lineno - 1] = f"{text[:at]}q_{text[at:]}"
        assert hash_of(Path(name), "\n".join(lines)) != hash_of(Path(name), CODE)


def test_the_families_and_the_whole_core_are_recorded(tmp_path: Path) -> None:
    plan = planned(project(tmp_path), "sum")
    node = leaf(plan, "sum").spec
    assert isinstance(node, Leaf)
    recorded = sources(node.model)
    files = {"heads/__init__.py", "heads/cosine.py", "combiners/__init__.py", "training/masked_lm.py",
             "training/trainer.py", "parts/encoders/bert/ops.py", "tasks/metrics.py"}
    assert files <= recorded.keys()
    assert all(path.is_file() for path in recorded.values())


def before(root: Path, number: int) -> dict[str, str]:
    """Return what mtrun 0.1 recorded of the sources of `sum`: the number picks one of the hashes of each file."""
    node = leaf(planned(root, "sum"), "sum").spec
    assert isinstance(node, Leaf)
    known = json.loads(identity.KNOWN.read_text())
    return {name: hashes[number % len(hashes)] for file in sources(node.model) if file in known
            for name, hashes in known[file]["before"].items()}


@pytest.mark.parametrize("number", range(3))
def test_a_run_of_a_version_with_other_files_is_fresh_as_long_as_its_code_is(tmp_path: Path, number: int) -> None:
    """As mtrun 0.1 recorded them: hashes of texts, of the last or an older one with the same code, and of code."""
    root = project(tmp_path)
    old = before(root, number)
    assert {"train.py", "network.py", "batches.py", "layers.py", "heads/cosine.py"} <= old.keys()
    finish(root, "sum", source=old)
    assert leaf(planned(root, "sum"), "sum").stale == ()


def test_a_file_that_another_version_had_otherwise_is_stale_wherever_its_code_is_now(tmp_path: Path) -> None:
    root = project(tmp_path)
    finish(root, "sum", source=before(root, 0) | {
        "tokens.py": "0123456789ab", "heads/cosine.py": "0123456789ab.0123456789ab"})
    stale = {"heads/cosine.py", "parts/encoders/bert/tokenizer.py", "training/tokens.py"}
    assert set(leaf(planned(root, "sum"), "sum").stale) == stale


def test_a_run_of_a_version_with_other_files_is_stale_once_the_code_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project(tmp_path)
    finish(root, "sum", source=before(root, 0))
    other = tmp_path / "trainer.py"
    other.write_text("something = 'else'\n")
    real = identity.sources
    monkeypatch.setattr(identity, "sources", lambda model: real(model) | {"training/trainer.py": other})
    assert leaf(planned(root, "sum"), "sum").stale == ("training/trainer.py",)


def test_a_run_is_fresh_by_its_code_where_the_text_is_another(tmp_path: Path) -> None:
    root = project(tmp_path)
    node = leaf(planned(root, "sum"), "sum").spec
    assert isinstance(node, Leaf)
    prints = fingerprints(node.model)
    finish(root, "sum", source={file: f"{'0' * 12}.{one.partition('.')[2]}" for file, one in prints.items()}
           | {"training/trainer.py": f"{'0' * 12}.{'1' * 12}"})
    assert leaf(planned(root, "sum"), "sum").stale == ("training/trainer.py",)


def test_a_text_that_nobody_knows_is_stale(tmp_path: Path) -> None:
    root = project(tmp_path)
    finish(root, "sum", source={"training/trainer.py": "0123456789ab", "gone.py": "0123456789ab"})
    assert leaf(planned(root, "sum"), "sum").stale == ("training/trainer.py",)
