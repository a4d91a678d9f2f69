"""What a spec is refused: hostile projects in bounded time and memory, each with a place, and quickly without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.errors import SpecError
from runner.specs.loader import Loader

PROJECT = Path(__file__).parents[1] / "golden" / "project"
SIZE = 1 << 20
HANGS = 30
"""Seconds of processor time after which a text counts as one that is never refused; an idle machine needs one."""
MODEL = 'kind = "model"\nextends = "base.toml"\n'
TREE = 'kind = "ensemble"\n[tree]\ntype = "average"\nmembers = '


def lines(count: int, form: str) -> str:
    """So many lines, each with its number."""
    return "".join(form.format(i) + "\n" for i in range(count))


def listed(items: list[str]) -> str:
    return f"[{', '.join(items)}]\n"


SEEDS = listed([str(i) for i in range(1000)])
FILES = {
    "too long": MODEL + "#" * SIZE,
    "unknown keys": MODEL + "[train]\n" + lines(19_000, "epoch{} = 1"),
    "unknown tables": MODEL + lines(9000, "[train{}]"),
    "unknown heads": MODEL + lines(6000, "[heads.sentiment{}]"),
    "long key": MODEL + f"[train]\n{'k' * (SIZE - 100)} = 1\n",
    "long text": MODEL + f"[train]\nprecision = '{'k' * (SIZE - 100)}'\n",
    "long name": MODEL + f"name = '{'k' * (SIZE - 100)}'\n",
    "wrong items": MODEL + "[heads.paraphrase]\nfeatures = " + listed(["'x'"] * 19_000),
    "missing members": TREE + listed([f"'gone{i}.toml'" for i in range(18_000)]),
    "wrong members": TREE + listed(["1"] * 18_000),
    "missing runs": TREE + listed([f"'run:{i}'" for i in range(18_000)]),
    "deep tree": TREE + "[{type='average', members=" * 40 + "[]" + "}]" * 40,
    "sweep of many keys": MODEL + "[sweep]\n" + lines(900, "train.k{} = [1, 2, 3, 4, 5, 6, 7, 8, 9]"),
    "sweep of many values": MODEL + "[sweep]\nlimit = 10000\ntrain.seed = " + listed([str(i) for i in range(18_000)]),
    "sweep of wrong values": MODEL + "[sweep]\ntrain.seed = " + listed([str(-i) for i in range(1, 1000)]),
    "sweep over its limit": MODEL + f"[sweep]\nlimit = {10**9}\ntrain.seed = [1]\n",
    "sweep of a deep key": MODEL + f"[sweep]\n'{'a.' * 400_000}a' = [1]\n",
    "sweep named too often": TREE + listed(["'sweep.toml'"] * 18_000),
    "doubling": TREE + "['d0.toml']\n",
    "deep members": TREE + "['c0.toml']\n",
    "deep extends": "kind = 'model'\nextends = 'e0.toml'\n",
    "huge integer": MODEL + f"[train]\nseed = {'9' * (SIZE - 100)}\n",
    "not finite": MODEL + "[optimizer]\nlr = nan\nlr_scale = inf\n",
    "NUL": MODEL + "name = \"a\\u0000b\"\n",
    "brackets": "[" * SIZE,
    "open list": MODEL + "x = [" + "\n" * (SIZE - 100),
    "open quotes": MODEL + 'x = "' + "\\n" * (SIZE // 2 - 100),
}
"""Hostile specs by name."""
BESIDE = {
    "sweep named too often": {"sweep": f"{MODEL}[sweep]\ntrain.seed = {SEEDS}"},
    "doubling": {f"d{i}": TREE + f"['d{i + 1}.toml', 'd{i + 1}.toml']\n" for i in range(45)}
    | {"d45": TREE + "['base.toml', 'gone.toml']\n"},
    "deep members": {f"c{i}": TREE + f"['c{i + 1}.toml']\n" for i in range(500)},
    "deep extends": {f"e{i}": f"extends = 'e{i + 1}.toml'\n" for i in range(500)},
}
"""The files that they need."""


def hostile(root: Path, name: str) -> Path:
    """A project whose specs/spec.toml is hostile."""
    shutil.copytree(PROJECT, root / "p")
    for file, text in {"spec": FILES[name], **BESIDE.get(name, {})}.items():
        (root / "p" / "specs" / f"{file}.toml").write_text(text)
    return root / "p"


@pytest.mark.parametrize("name", FILES)
def test_hostile_specs_are_refused_in_the_end(tmp_path: Path, name: str) -> None:
    root = hostile(tmp_path, name)
    started = time.process_time()
    with pytest.raises(SpecError) as caught:
        Loader(root).load(root / "specs" / "spec.toml")
    text = caught.value.render()
    assert time.process_time() - started < HANGS
    assert len(text) < 30_000 and all(problem.place for problem in caught.value.problems)


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_the_command_refuses_them_within_200_megabytes(tmp_path: Path, name: str) -> None:
    root = hostile(tmp_path, name)
    command = [sys.executable, "-c", "from runner.cli import main; main(['check', 'specs/spec.toml'])"]
    with open(tmp_path / "out", "wb") as out:
        process = subprocess.Popen(command, cwd=root, stdout=out, stderr=out)
        _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 2, (tmp_path / "out").read_text()
    print(f"\n{name}: {used.ru_utime + used.ru_stime:.2f} s of processor time, {used.ru_maxrss >> 10} MB")
    assert used.ru_utime + used.ru_stime < HANGS
    assert used.ru_maxrss < 200 << 10


def test_a_structural_error_imports_neither_torch_nor_numpy(tmp_path: Path) -> None:
    root = hostile(tmp_path, "not finite")
    code = ("import sys\nfrom runner.cli import main\ntry:\n    main(['check', 'specs/spec.toml'])\n"
            "finally:\n    print(sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "[]\n"), done.stderr


@pytest.mark.long
def test_ten_thousand_nodes_are_too_many(tmp_path: Path) -> None:
    root = hostile(tmp_path, "sweep named too often")
    sweep = (root / "specs" / "sweep.toml").read_text()
    for number in range(11):
        text = sweep.replace("[sweep]", f"[train]\nepochs = {number + 1}\n[sweep]")
        (root / "specs" / f"s{number}.toml").write_text(text)
    (root / "specs" / "spec.toml").write_text(TREE + listed([f"'s{i}.toml'" for i in range(11)]))
    with pytest.raises(SpecError) as caught:
        Loader(root).load(root / "specs" / "spec.toml")
    (problem,) = caught.value.problems
    assert problem.message == "a build has at most 10,000 nodes"
    assert any(note.endswith("specs/spec.toml:4") for note in problem.notes)


def test_what_is_printed_has_no_control_characters(tmp_path: Path) -> None:
    root = hostile(tmp_path, "not finite")
    (root / "specs" / "spec.toml").write_text(
        MODEL + "'train\u202e' = 1\ncombiner = 'su\u200bm'\n[heads.'a\u2066b']\ntype = 'x'\n"
        '[train]\nprecision = "\\u009b31m"\n')
    for settings in ([], ["train.precision=\x1b[31mred", "x\u202ey=1"]):
        with pytest.raises(SpecError) as caught:
            Loader(root, "demo", settings).load(root / "specs" / "spec.toml")
        text = caught.value.render()
        assert text.replace("\n", "").isprintable(), repr(text)
        assert len(caught.value.problems) >= 1
