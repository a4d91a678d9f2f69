"""A registry that never loses and never lies: commits under every failure, damage, races, leases."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import faults
import pytest
from registries import ID, OTHER, commit, files, manifest, predictions

from runner.errors import MtrunError, RegistryError, StorageError
from runner.files import append, lock, make_folder, write_bytes, write_unsynced
from runner.registry import lease
from runner.registry.manifest import json_with_checksum, parse_manifest
from runner.registry.registry import MANIFEST, PREDICTIONS, WEIGHTS, Registry, Run


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of syncs are slow on a disk."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture
def registry(folder: Path) -> Registry:
    """A registry with one finished run, beside which others are made."""
    made = Registry(folder / "project" / "registry")
    commit(made, OTHER, 1)
    return made


def leftovers(registry: Registry) -> list[str]:
    return sorted(p.name for p in registry.attempts.iterdir())


# A commit ---------------------------------------------------------------------------------------------------------


def test_a_run_is_what_was_committed(registry: Registry) -> None:
    run = commit(registry)
    assert {name: run.read(name) for name in run.manifest["files"]} == files()
    assert run.predictions().outputs["dev"]["sentiment"].ids == tuple("abcdefg")
    assert [r.id for r in registry.runs()] == [ID, OTHER]
    assert not leftovers(registry)


def test_the_seal_of_a_manifest_can_be_checked_by_hand(registry: Registry) -> None:
    path = commit(registry).folder / MANIFEST
    said = subprocess.run(f"head -n -2 {path} | sha256sum", shell=True, capture_output=True, text=True).stdout
    assert json.loads(path.read_bytes())["sha256"] == said.split()[0]


def test_the_first_of_two_is_kept(registry: Registry) -> None:
    first = (commit(registry, seed=0).folder / MANIFEST).read_bytes()
    assert commit(registry, seed=5).read(WEIGHTS) == files(0)[WEIGHTS]
    assert (registry.root / ID / MANIFEST).read_bytes() == first
    assert not leftovers(registry)


def test_a_damaged_run_gives_way(registry: Registry) -> None:
    run = commit(registry)
    (run.folder / WEIGHTS).write_bytes(b"\0" * 3000)  # of the right length
    assert commit(registry, seed=5).read(WEIGHTS) == files(5)[WEIGHTS]
    assert [p.name[:12] for p in (registry.root / ".damaged").iterdir()] == [ID]


def test_a_run_that_is_replaced_stays_until_then(registry: Registry) -> None:
    old = commit(registry)
    new = commit(registry, seed=5, replaces=old.manifest["sha256"])
    assert new.read(WEIGHTS) == files(5)[WEIGHTS]
    assert commit(registry, seed=6, replaces=old.manifest["sha256"]).manifest == new.manifest, "replaced once"
    (aside,) = (registry.root / ".replaced").iterdir()
    assert (aside / WEIGHTS).read_bytes() == files(0)[WEIGHTS]


def test_dropped_weights_leave_a_sound_run(registry: Registry) -> None:
    run = commit(registry)
    registry.drop_weights(run)
    found = registry.find(ID)
    assert found and found.predictions().outputs and WEIGHTS not in found.manifest["files"]
    assert not (found.folder / WEIGHTS).exists()
    found.verify()
    with pytest.raises(RegistryError, match=f"run {ID} has no file {WEIGHTS}"):
        found.read(WEIGHTS)


def test_a_dropped_run_is_gone(registry: Registry) -> None:
    commit(registry)
    registry.drop(ID)
    registry.drop(ID)
    assert registry.ids() == [OTHER] and not leftovers(registry)


# Every file operation as a crash point ----------------------------------------------------------------------------


def sound(registry: Registry, id: str) -> bool:
    """Return whether a run is there, after reading all of it; damage raises."""
    if run := registry.find(id):
        run.verify()
        assert run.predictions().outputs
    return run is not None


def points(registry: Registry, work: Callable[[], Any]) -> list[str]:
    """Return the names of the file operations of some work on a registry; the work is undone."""
    before = registry.root.with_name("before")
    shutil.copytree(registry.root, before)
    outcome = faults.run(work, faults.Operations(registry.root))
    assert not outcome.error
    shutil.rmtree(registry.root)
    before.rename(registry.root)
    return [name for name, _ in outcome.seen]


@pytest.mark.parametrize("half", [False, True], ids=["before", "half"])
@pytest.mark.parametrize("there", ["nothing", "damaged", "replaced"])
def test_a_crash_at_every_file_operation_of_a_commit(registry: Registry, there: str, half: bool) -> None:
    """Nothing finished is lost, nothing partial is accepted, and the next commit succeeds."""
    replaces = ""
    if there != "nothing":
        replaces = commit(registry, seed=3).manifest["sha256"] if there == "replaced" else ""
    if there == "damaged":
        (commit(registry, seed=3).folder / PREDICTIONS).unlink()
    before = registry.root.with_name("saved")
    shutil.copytree(registry.root, before)
    names = points(registry, lambda: commit(registry, replaces=replaces))
    chosen = [at for at, name in enumerate(names, 1) if not half or name == "write"]
    assert len(names) >= 25 and names.count("write") == 5
    accepted = 0
    for at in chosen:
        dying = faults.Operations(registry.root, at, half=half)
        outcome = faults.run(lambda: commit(registry, replaces=replaces), dying)
        assert outcome.died
        assert sound(registry, OTHER), f"point {at}: a finished run is lost"
        try:
            accepted += sound(registry, ID)
        except RegistryError:
            assert there == "damaged", f"point {at}: a part of a run lies in its place"
        if there == "replaced" and not registry.find(ID):
            assert list((registry.root / ".replaced").iterdir()), f"point {at}: the old run is lost"
        assert sound(registry, commit(registry, replaces=replaces).id), "the next commit succeeds"
        shutil.rmtree(registry.root)
        shutil.copytree(before, registry.root)
    print(f"\ncommit onto {there}: died {'in each write' if half else 'at each file operation'}, {len(chosen)} points; "
          "0 runs lost, 0 partial ones accepted")
    assert accepted or half or there != "nothing", "the last operations come after the rename"


@pytest.mark.parametrize(("error", "lasting"), [
    (faults.NO_ROOM, True), (faults.NO_ROOM, False), (faults.NO_LUCK, False)], ids=["full", "full-once", "EIO"])
def test_an_error_at_every_file_operation_of_a_commit(registry: Registry, error: int, lasting: bool) -> None:
    total = len(points(registry, lambda: commit(registry)))
    said = 0
    for at in range(1, total + 1):
        outcome = faults.run(lambda: commit(registry).id, faults.Operations(registry.root, at, error, lasting))
        assert not outcome.died
        if outcome.error is None:
            assert outcome.value == ID and sound(registry, ID), "an error in clearing up alone changes nothing"
        else:
            said += 1
            assert isinstance(outcome.error, StorageError), f"point {at}: {outcome.error!r}"
            text = outcome.error.render()
            assert os.strerror(error) in text and str(registry.root) in text
            assert "cannot" in text and ("bytes)" in text or "cannot write" not in text), text
        assert sound(registry, OTHER)
        sound(registry, ID)
        assert sound(registry, commit(registry).id)
        registry.drop(ID)
    print(f"\n{os.strerror(error)}{' (lasting)' * lasting} at each of {total} file operations: {said} StorageErrors, "
          "0 runs lost, 0 partial ones accepted")
    assert said >= 20


@pytest.mark.parametrize("there", ["nothing", "replaced"])
def test_a_power_cut_at_every_file_operation_of_a_commit(folder: Path, there: str) -> None:
    """What was not synced is lost, kept or cut, by chance; what was committed before must be there."""
    registry = Registry(folder / "project" / "registry")
    commit(registry, OTHER, 1)
    replaces = commit(registry, seed=3).manifest["sha256"] if there == "replaced" else ""
    disk = faults.Disk.of(folder / "project")
    tape = faults.recorded(lambda: commit(registry, replaces=replaces), folder / "project")
    chance, states = random.Random(0), 0
    for number in range(len(tape) + 1):
        for keep in (lambda: 0.0, lambda: 1.0, chance.random, chance.random, chance.random):
            left = Registry(folder / "left" / "registry")
            disk.left(left.root.parent, keep)
            assert sound(left, OTHER)
            is_there = sound(left, ID)
            assert is_there or number < len(tape), "a run whose commit returned is lost"
            shutil.rmtree(left.root.parent)
            states += 1
        if number < len(tape):
            disk.apply(*tape[number])
    print(f"\npower cut at each of {len(tape)} operations, {states} states of the disk: "
          "0 runs lost, 0 partial ones accepted")


def test_a_first_commit_survives_a_power_cut(folder: Path) -> None:
    """The registry's own folder is durable, too."""
    (folder / "project").mkdir()
    registry = Registry(folder / "project" / "registry")
    disk = faults.Disk.of(folder / "project")
    for operation in faults.recorded(lambda: commit(registry), folder / "project"):
        disk.apply(*operation)
    disk.left(folder / "left", lambda: 0.0)
    assert sound(Registry(folder / "left" / "registry"), ID)


@pytest.mark.parametrize("error", [faults.NO_ROOM, faults.NO_LUCK])
def test_an_error_at_every_file_operation_of_a_replacement(tmp_path: Path, error: int) -> None:
    """`write_bytes`, which writes results, checkpoints and orders: the old file or the new one."""
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    total = len(faults.run(lambda: write_bytes(path, b"new and longer"), faults.Operations(tmp_path)).seen)
    for at, what in itertools.product(range(1, total + 1), (error, 0)):
        path.write_bytes(b"old")
        outcome = faults.run(lambda: write_bytes(path, b"new and longer"), faults.Operations(tmp_path, at, what))
        assert path.read_bytes() in (b"old", b"new and longer")
        if not outcome.died:
            assert isinstance(outcome.error, StorageError) and "(14 bytes)" in str(outcome.error)
            assert [p.name for p in path.parent.iterdir()] == ["file"], "nothing is left beside it"
        for left in path.parent.glob(".*"):
            left.unlink()


def test_notes_that_cannot_be_written_stop_nothing(tmp_path: Path) -> None:
    write_unsynced(tmp_path / "none" / "progress.json", b"{}")
    append(tmp_path / "none" / "log.txt", "line")
    assert not list(tmp_path.iterdir())


# Damage -----------------------------------------------------------------------------------------------------------


def damaged(folder: Path, chance: random.Random) -> str:
    """Damage one file of a run and say how."""
    path = chance.choice(sorted(folder.iterdir()))
    data, kind = bytearray(path.read_bytes()), chance.choice(["flip", "flip", "cut", "delete", "longer"])
    at = chance.randrange(len(data))
    if kind == "flip":
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "longer":
        data += chance.randbytes(chance.randrange(1, 20))
    path.write_bytes(data)
    if kind == "delete":
        path.unlink()
    return f"{kind} {path.name} at {at}"


def test_a_thousand_damages_are_all_found_and_none_is_used(registry: Registry) -> None:
    run = commit(registry)
    saved, chance, kinds = registry.root.with_name("saved"), random.Random(0), {}
    shutil.copytree(run.folder, saved)
    for _ in range(1000):
        how = damaged(run.folder, chance)
        kinds[how.split()[0]] = kinds.get(how.split()[0], 0) + 1
        with pytest.raises(RegistryError) as caught:
            found = registry.find(ID)
            assert found
            found.verify()
        assert ID in str(caught.value) and how.split()[1] in str(caught.value), how
        if PREDICTIONS in how or MANIFEST in how:
            with pytest.raises(RegistryError):
                found = registry.find(ID)
                assert found
                found.predictions()
        shutil.rmtree(run.folder)
        shutil.copytree(saved, run.folder)
    print(f"\n1,000 damages ({', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}): all found, none used")


CHANGES: dict[str, Callable[[Registry, Run], object]] = {
    "weights dropped": lambda registry, run: registry.drop_weights(run),
    "replaced": lambda registry, run: commit(registry, ID, 2, replaces=run.manifest["sha256"]),
    "removed": lambda registry, run: registry.drop(ID),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("method", ["find", "check"])
def test_what_changes_while_it_is_read_is_no_damage(registry: Registry, monkeypatch: pytest.MonkeyPatch, change: str,
                                                    method: str) -> None:
    run, by_manifest = commit(registry), Registry.find_by_manifest

    def slow(self: Registry, id: str) -> Run | None:
        found = by_manifest(self, id)
        monkeypatch.undo()
        CHANGES[change](registry, run)
        return found

    monkeypatch.setattr(Registry, "find_by_manifest", slow)
    found = getattr(registry, method)(ID)
    assert (found is None) == (change == "removed") and registry.has(ID) == (change != "removed")
    assert not found or method == "find" or WEIGHTS in found.manifest["files"] or change == "weights dropped"


def test_copies_and_touches_are_no_damage(registry: Registry, tmp_path: Path) -> None:
    run = commit(registry)
    for path in run.folder.iterdir():
        os.utime(path, (0, 0))
    shutil.copytree(registry.root, tmp_path / "copy")
    assert sound(registry, ID) and sound(Registry(tmp_path / "copy"), ID)


def test_a_run_under_the_id_of_another_is_damage(registry: Registry) -> None:
    shutil.copytree(registry.root / OTHER, registry.root / ID)
    with pytest.raises(RegistryError, match="another run or format"):
        registry.find(ID)


@pytest.mark.parametrize("put", ["file", "empty", "manifest is a folder", "dangling"])
def test_what_is_no_run_at_all_is_damage_and_gives_way(registry: Registry, put: str) -> None:
    path = registry.root / ID
    if put == "file":
        path.write_text("x")
    elif put == "dangling":
        path.symlink_to("nowhere")
    else:
        path.mkdir()
        if put != "empty":
            (path / MANIFEST).mkdir()
    with pytest.raises(RegistryError, match="damaged"):
        registry.find(ID)
    assert sound(registry, commit(registry).id)


def hostile(chance: random.Random) -> bytes:
    """Make a manifest that means harm or nothing; half of them carry a valid seal."""
    values: list[Any] = [None, -1, 0, 1e308, 10**400, "", "../../x", "\x1b[2J", [], {}, [[]] * 50, {"a": {}}, True,
                         "x" * 5000]
    made = manifest(format=1, id=ID, files={PREDICTIONS: {"size": 3, "sha256": "0" * 64}})
    for _ in range(chance.randrange(1, 4)):
        table = chance.choice([made, made["files"], made["spec"], made["dev"], made["suite"]])
        if isinstance(table, dict):
            table[chance.choice([*table, "new", "../../etc/passwd"])] = deepcopy(chance.choice(values))
        made = {**manifest(format=1, id=ID, files={}), **made}
    if chance.random() < 0.1:
        return b'{"a": ' * 100_000 + b"}" * 100_000
    data = json_with_checksum(made)
    if chance.random() < 0.5:
        bad = bytearray(data)
        for _ in range(chance.randrange(1, 9)):
            bad[chance.randrange(len(bad))] = chance.randrange(256)
        above = bytes(bad)[: data.rindex(b' "sha256"')]
        data = above + f' "sha256": "{hashlib.sha256(above).hexdigest()}"\n}}\n'.encode()
    return data


@pytest.mark.parametrize("count", [500, pytest.param(5000, marks=pytest.mark.long)])
def test_hostile_manifests_raise_our_errors_only(registry: Registry, count: int) -> None:
    (registry.root / ID).mkdir()
    chance, refused = random.Random(count), 0
    for _ in range(count):
        (registry.root / ID / MANIFEST).write_bytes(hostile(chance))
        try:
            run = registry.find(ID)
            assert run
            run.size()
            run.verify()
        except MtrunError as error:
            refused += 1
            assert error.render()
    print(f"\n{count:,} hostile manifests: {refused:,} refused, no other error")
    assert refused > count * 0.9


def test_a_huge_manifest_is_not_read(registry: Registry) -> None:
    (registry.root / ID).mkdir()
    with (registry.root / ID / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)  # takes no room on the disk
    with pytest.raises(RegistryError, match="not what was written"):
        registry.find(ID)


def test_a_seal_is_for_all_of_a_manifest() -> None:
    data = json_with_checksum(manifest(format=1, id=ID, files={}))
    assert parse_manifest(data)["id"] == ID
    for bad in (data[:-1], data + b"\n", b" " + data, data.replace(b"sum", b"sun"), b"", b"{}", data * 2):
        with pytest.raises(ValueError):
            parse_manifest(bad)


# Races ------------------------------------------------------------------------------------------------------------


def _race(root: Path, barrier: Any, rounds: int, number: int) -> None:
    registry = Registry(root)
    for round_ in range(rounds):
        barrier.wait()
        made = {PREDICTIONS: predictions(number).to_bytes(), "who": b"%d" % number}
        registry.commit(f"{round_:012x}", made, manifest())


def test_two_hundred_rounds_of_four_racing_committers_have_one_winner_each(tmp_path: Path) -> None:
    context, rounds = multiprocessing.get_context("fork"), 200
    barrier = context.Barrier(4)
    racers = [context.Process(target=_race, args=(tmp_path / "registry", barrier, rounds, n)) for n in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(600)
        assert racer.exitcode == 0
    registry, wins = Registry(tmp_path / "registry"), [0] * 4
    for id in registry.ids():
        run = registry.find(id)
        assert run
        run.verify()
        winner = int(run.read("who"))
        assert run.read(PREDICTIONS) == predictions(winner).to_bytes()
        wins[winner] += 1
    assert sum(wins) == rounds and not leftovers(registry)
    print(f"\n{rounds} rounds of 4 racing committers: one winner each {wins}, nothing left over")


# Leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_is_had_by_one_and_leaves_nothing(registry: Registry) -> None:
    with registry.claim(ID) as first, registry.claim(ID) as second:
        assert first is not None and second is None
        there = lease.holder(registry.lease(ID))
        assert there and there.pid == os.getpid()
    assert lease.holder(registry.lease(ID)) is None
    with registry.claim(ID) as again:
        assert again is not None
    assert not leftovers(registry)


def test_a_lease_frees_itself_when_all_who_hold_it_are_dead(registry: Registry) -> None:
    """A build dies by kill -9; its worker, which inherited the descriptor, lives on and holds the lease."""
    code = ("import os, sys, time; from pathlib import Path; from runner.registry import Registry; import subprocess; "
            f"c = Registry(Path({str(registry.root)!r})).claim({ID!r}); fd = c.__enter__(); "
            "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], pass_fds=(fd,)); "
            "print(p.pid, flush=True); time.sleep(60)")
    build = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert build.stdout
    worker = int(build.stdout.readline())
    with registry.claim(ID) as mine:
        assert mine is None
    build.kill()
    build.wait()
    with registry.claim(ID) as mine:
        assert mine is None, "the worker still holds it"
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        with registry.claim(ID) as mine:
            if mine is not None:
                break
        time.sleep(0.01)
    assert mine is not None
    assert not leftovers(registry), "the dead holders' file is used, then removed"


def test_another_machines_lease_holds_while_it_is_touched(registry: Registry) -> None:
    path = registry.lease(ID)
    there = {"host": "elsewhere", "boot": "x", "pid": 5}
    make_folder(path.parent)
    path.write_text(json.dumps(there))
    with registry.claim(ID) as mine:
        assert mine is None
    assert lease.holder(path) == lease.Holder(**there)  # type: ignore[arg-type]
    old = time.time() - lease.FRESH_SECONDS - 1
    os.utime(path, (old, old))
    assert lease.holder(path) is None
    lease.touch(path)
    assert lease.holder(path) is not None
    os.utime(path, (old, old))
    with registry.claim(ID) as mine:
        assert mine is not None
    assert not path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "here"}', "null"])
def test_a_lease_that_says_nothing_is_free(registry: Registry, content: str) -> None:
    make_folder(registry.attempts)
    registry.lease(ID).write_text(content)
    with registry.claim(ID) as mine:
        assert mine is not None


def test_a_lease_of_an_earlier_start_of_this_machine_is_no_one_s(registry: Registry,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as another machine's: it frees itself after a minute, whoever has the process number now."""
    host, _ = lease._machine()
    make_folder(registry.attempts)
    registry.lease(ID).write_text(json.dumps({"host": host, "boot": "earlier", "pid": os.getpid()}))
    old = time.time() - lease.FRESH_SECONDS - 1
    os.utime(registry.lease(ID), (old, old))
    with registry.claim(ID) as mine:
        assert mine is not None


def _take(path: Path, barrier: Any, rounds: int, results: Any) -> None:
    for _ in range(rounds):
        barrier.wait()
        descriptor = lock(path)
        barrier.wait()
        results.put(descriptor is not None)
        if descriptor is not None:
            os.unlink(path)
            os.close(descriptor)


def test_a_lock_that_is_unlinked_by_its_holder_is_never_held_twice(tmp_path: Path) -> None:
    context, rounds = multiprocessing.get_context("fork"), 300
    barrier, results = context.Barrier(4), context.Queue()
    takers = [context.Process(target=_take, args=(tmp_path / "x.lock", barrier, rounds, results)) for _ in range(4)]
    for taker in takers:
        taker.start()
    held = [results.get(timeout=600) for _ in range(4 * rounds)]
    for taker in takers:
        taker.join(600)
    assert sum(held) == rounds


# A real disk ------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    registry = Registry(small_disk / "registry")
    commit(registry, OTHER, 1)
    with pytest.raises(StorageError) as caught:
        registry.commit(ID, {**files(), WEIGHTS: bytes(2 << 20)}, manifest())
    assert "No space left on device" in caught.value.render() and "(2,097,152 bytes)" in caught.value.render()
    assert sound(registry, OTHER) and not sound(registry, ID) and not leftovers(registry)
    (small_disk / "ballast").write_bytes(bytes(1_800_000))
    (small_disk / "ballast").unlink()
    assert sound(registry, commit(registry).id)


def test_a_disk_that_is_really_read_only(small_disk: Path) -> None:
    registry = Registry(small_disk / "registry")
    commit(registry, OTHER, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert sound(registry, OTHER) and lease.holder(registry.lease(OTHER)) is None
    for work in (lambda: commit(registry), lambda: registry.claim(ID).__enter__(), lambda: registry.drop(OTHER),
                 lambda: registry.set_aside(OTHER)):
        with pytest.raises(StorageError, match="Read-only file system"):
            work()


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
