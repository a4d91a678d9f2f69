"""Bundles: what was built, in one zip or folder that another machine can check, show and use.

    bundle.json              the record: systems, nodes, tasks, and size and sha256 of every other file; sealed
    specs/                   the specs and what they stand on, as they are
    registry/ID/             the runs, as they are
    results/PROFILE/NAME.json    the scored trees
    labels/ID.json           ids and labels of dev and test, no sentences, by suite
    tokenizers/ID.json       each leaf's tokenizer, as the library `tokenizers` reads it
    predictions/ID.safetensors   what each predictions file of another program says
    transformers/            for a single leaf: the encoder (and its classifier) as the library `transformers` reads it
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MtrunError, Problem, UsageError, clean
from ...files import copy_new, make_folder, reported
from ...plan.plan import Plan
from ...plan.predict import finished
from ...project import Project
from ...registry.manifest import LIMIT, sealed, unsealed
from ...registry.registry import EPOCHS, HISTORY, LOG, MANIFEST, PREDICTIONS, WEIGHTS, Registry
from ...specs.spec import Filed
from ...tasks.data import Data
from ...tasks.predictions import Predictions
from ...worker.executors.inline import Inline
from ..build import Build
from ..scheduler import Scheduler
from . import archive as archives
from .archive import Archive, Content
from .record import Record, Size, judged, labels

RECORD = "bundle.json"

PREDICTED = 1 << 32
"""Most bytes of a predictions file."""

MOST = 1 << 26
"""Most bytes of the record, of a file of labels and of a result."""

NEWER = re.compile(r"tree(\.members\.\d+)*\.digest|spec|settings\.\d+")
"""Keys that results of older versions do not have."""

RUN_FILES = (MANIFEST, PREDICTIONS, EPOCHS, WEIGHTS, HISTORY, LOG)

_KNOWN = re.compile("|".join([
    r"specs/.+\.(toml|csv|tsv|safetensors)", rf"registry/[0-9a-f]{{12}}/({'|'.join(map(re.escape, RUN_FILES))})",
    r"results/[^/]+/[^/]+\.json", r"(labels|tokenizers)/[0-9a-f]{12}\.json",
    r"predictions/[0-9a-f]{12}\.safetensors", r"transformers/[^/]+\.(json|safetensors|txt)"]))
"""No file of a bundle is code, and none but those of `specs/` can be read as a spec."""


@dataclass(frozen=True)
class _Apart(Registry):
    """The runs of a registry, with a cache of their own, so that what is computed again is not what is remembered."""

    away: Path

    @property
    def cache(self) -> Path:
        """Folder of what can be made again at any time."""
        return self.away


def results(record: Record, runs: Path, data: Mapping[str, Data], filed: Mapping[str, Predictions], project: Path
            ) -> dict[str, bytes]:
    """Return all that a build of a record's systems publishes, from the predictions in the registry `runs` and files.

    `project` may have parts of its own. Raise MtrunError.
    """
    with tempfile.TemporaryDirectory(prefix="mtrun-") as name:
        folder = Path(name)
        plan = record.plan(_Apart(runs, folder / "cache"), data, filed, project)
        work = Build(plan, Scheduler(plan.registry, project, Inline(), jobs=1), folder / "results")
        failed = [event for event in work.events() if event.event in ("failed", "damaged")]
        if failed:
            raise MtrunError(*(Problem(text.removeprefix("error: ")) for event in failed
                               for text in event.values["problems"]))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("results/*/*.json")}


# Export --------------------------------------------------------------------------------------------------------------


def files(plan: Plan, settings: Sequence[str], extra: Mapping[str, Content]) -> dict[str, Content]:
    """Return the files of the bundle of a plan; `extra` are made by others. Raise UsageError, RegistryError."""
    runs = [run for root in plan.roots.values() for run in finished(plan, root).values()]
    record = Record.of(plan, settings)
    data = {suite: plan.data[suite] for suite in record.suites}
    scores = [node.spec.path for node in plan.nodes.values() if isinstance(node.spec, Filed)]
    held: dict[str, Content] = {f"specs/{_below_specs(path, plan.project)}": path for path in [*plan.files, *scores]}
    for run in runs:
        run.verify()
        held |= {f"registry/{run.id}/{name}": run.folder / name for name in (MANIFEST, *run.manifest["files"])}
    held |= results(record, plan.registry.root, data, plan.filed, plan.project)
    held |= {f"predictions/{id}.safetensors": plan.filed[id].to_bytes() for id in record.filed}
    held |= {f"labels/{suite[:12]}.json": labels(data[suite]) for suite in data}
    held |= extra
    sizes = {name: _size(content) for name, content in held.items()}
    return {**held, RECORD: record.model_copy(update={"files": sizes}).to_bytes()}


def _below_specs(path: Path, project: Path) -> str:
    """Return a spec's name below the folder of specs. Raise UsageError where it lies elsewhere."""
    if not path.is_relative_to(Project(project).specs):
        raise UsageError(f"{path} is outside {project / 'specs'}, and only what is in there can be exported")
    return path.relative_to(Project(project).specs).as_posix()


def _size(content: Content) -> Size:
    """Return what a file must be."""
    if isinstance(content, bytes):
        return Size(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    with reported("read", content), content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Size(size=file.tell(), sha256=digest)


# Reading -------------------------------------------------------------------------------------------------------------


class Bundle:
    """A bundle of somebody else's; nothing of it is used before its sha256 was compared."""

    def __init__(self, archive: Archive) -> None:
        """Read the record. Raise DataError where files lack, are too many, or have names that no bundle has."""
        self.archive = archive
        self.record = Record.from_bytes(archive.read(RECORD, MOST), f"{archive.path}: {RECORD}")
        claimed = {name: one.size for name, one in self.record.files.items()}
        found = {name: size for name, size in archive.sizes.items() if name != RECORD}
        if claimed != found:
            names = sorted(name for name in {*claimed, *found} if claimed.get(name) != found.get(name))
            raise archive.error(f"{names[0]} is missing, foreign or of another length than its record says")
        if foreign := [name for name in claimed if not _KNOWN.fullmatch(name)]:
            raise archive.error(f"{foreign[0]} is no file of a bundle")

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file. Raise DataError at its end where they are not what the record says."""
        digest = hashlib.sha256()
        for portion in self.archive.chunks(name):
            digest.update(portion)
            yield portion
        if digest.hexdigest() != self.record.files[name].sha256:
            raise self.archive.error(f"{name} is damaged: it is not what was written")

    def read(self, name: str, most: int = MOST) -> bytes:
        """Return a file. Raise DataError where it is missing, too large or damaged."""
        if self.record.files[name].size > most if name in self.record.files else True:
            raise self.archive.error(f"{name} is missing or over {most:,} bytes")
        return b"".join(self.chunks(name))

    def verify(self) -> None:
        """Read every byte. Raise DataError for the first file that is not what was written."""
        for name in self.record.files:
            for _ in self.chunks(name):
                pass

    def below(self, folder: str) -> list[str]:
        """Return the names of the files in a folder."""
        return [name for name in self.record.files if name.startswith(f"{folder}/")]

    def manifest(self, id: str) -> bytes:
        """Return a run's manifest. Raise DataError where it is not that of the run and of the files in the bundle."""
        folder = f"registry/{id}"
        data = self.read(f"{folder}/{MANIFEST}", LIMIT)
        try:
            manifest = unsealed(data)
        except ValueError as error:
            raise self.archive.error(f"the manifest of {id} is damaged: {error}") from None
        files = {f"{folder}/{name}": entry for name, entry in manifest["files"].items()}
        held = {name: self.record.files[name].model_dump() for name in self.below(folder)}
        held.pop(f"{folder}/{MANIFEST}")
        if manifest["id"] != id or files != held:
            raise self.archive.error(f"the manifest of {id} is of another run or of other files")
        return data

    def data(self) -> dict[str, Data]:
        """Return the labels of the suites by the hash of their content."""
        return {sha: judged(suite, self.read(f"labels/{sha[:12]}.json"), f"{self.archive.path}: labels/{sha[:12]}.json")
                for sha, suite in self.record.suites.items()}

    def recomputed(self, project: Path) -> dict[str, tuple[bytes, bytes]]:
        """Return each result as the bundle has it and as it comes out of the predictions in it, by name."""
        filed = {id: Predictions.from_bytes(self.read(f"predictions/{id}.safetensors", PREDICTED), id)
                 for id in self.record.filed}
        with tempfile.TemporaryDirectory(prefix="mtrun-") as folder:
            for id in self.record.runs:
                self._take_without_weights(id, Registry(Path(folder)))
            made = results(self.record, Path(folder), self.data(), filed, project)
        there = {name: self.read(name) for name in self.below("results")}
        if there.keys() != made.keys():
            raise self.archive.error(f"{min(there.keys() ^ made.keys())} is not the result of one of its systems")
        return {name: (there[name], made[name]) for name in sorted(made)}

    def _take_without_weights(self, id: str, registry: Registry) -> None:
        """Put a run into a registry that is thrown away, without its weights."""
        manifest = {key: value for key, value in unsealed(self.manifest(id)).items() if key != "sha256"}
        manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name != WEIGHTS}
        make_folder(registry.root / id)
        for name in manifest["files"]:
            copy_new(registry.root / id / name, self.chunks(f"registry/{id}/{name}"))
        copy_new(registry.root / id / MANIFEST, [sealed(manifest)])


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """Give a bundle to read from. Raise DataError where it cannot be trusted, StorageError."""
    with archives.opened(path) as archive:
        yield Bundle(archive)


# Comparison ----------------------------------------------------------------------------------------------------------


def differences(name: str, there: bytes, made: bytes) -> list[str]:
    """Return a line for each value of a result that is another than the one computed again."""
    old, new = dict(_values(json.loads(there))), dict(_values(json.loads(made)))
    return [clean(f"{name}: {key} is {old.get(key)} in the bundle, {new.get(key)} computed again")
            for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)
            and (key in old or not NEWER.fullmatch(key))]


def numbers(result: bytes) -> int:
    """Return how many numbers a result has."""
    return sum(isinstance(value, int | float) and not isinstance(value, bool)
               for _, value in _values(json.loads(result)))


def _values(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the place of each plain value inside lists and tables, and the value."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(item, f"{above}.{key}" if above else str(key))
    else:
        yield above, value
