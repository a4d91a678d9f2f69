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

from runner import provenance
from runner.parts import code_hash
from runner.provenance import fingerprints, sources
from runner.spec import Leaf

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
    node = leaf(plan, "sum").node
    assert isinstance(node, Leaf)
    recorded = sources(node.model)
    files = {"heads/__init__.py", "heads/cosine.py", "combiners/__init__.py", "masking.py", "train.py"}
    assert files <= recorded.keys()
    assert all(path.is_file() for path in recorded.values())


def test_a_run_with_hashes_of_texts_is_fresh_as_long_as_its_code_is(tmp_path: Path) -> None:
    """As mtrun 0.1 recorded them: of the present text, of an older one with the same code, of other code."""
    root = project(tmp_path)
    node = leaf(planned(root, "sum"), "sum").node
    assert isinstance(node, Leaf)
    texts = {file: hashlib.sha256(path.read_bytes()).hexdigest()[:12] for file, path in sources(node.model).items()}
    known = json.loads(provenance.KNOWN.read_text())
    now = {file: print_.partition(".")[2] for file, print_ in fingerprints(node.model).items()}
    older = {file: next(text for text, code in known[file].items() if code == now[file])
             for file in texts if now[file] in known.get(file, {}).values()}
    assert older, "some file of today was committed as it is"
    finish(root, "sum", source=texts | older)
    assert leaf(planned(root, "sum"), "sum").stale == ()


def test_a_run_is_fresh_by_its_code_where_the_text_is_another(tmp_path: Path) -> None:
    root = project(tmp_path)
    node = leaf(planned(root, "sum"), "sum").node
    assert isinstance(node, Leaf)
    prints = fingerprints(node.model)
    finish(root, "sum", source={file: f"{'0' * 12}.{one.partition('.')[2]}" for file, one in prints.items()}
           | {"train.py": f"{'0' * 12}.{'1' * 12}"})
    assert leaf(planned(root, "sum"), "sum").stale == ("train.py",)


def test_a_text_that_nobody_knows_is_stale(tmp_path: Path) -> None:
    root = project(tmp_path)
    finish(root, "sum", source={"train.py": "0123456789ab", "gone.py": "0123456789ab"})
    assert leaf(planned(root, "sum"), "sum").stale == ("train.py",)
