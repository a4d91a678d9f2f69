"""Bundles: the systems of a build in one zip or folder, which another machine can verify, show and use.

    bundle.json              the record: systems, nodes, tasks, size and sha256 of every other file, and a checksum
    specs/                   the specs and the files that they refer to, unchanged
    registry/ID/             the runs, unchanged
    results/PROFILE/NAME.json    the results
    labels/ID.json           ids and labels of dev and test without sentences, by suite
    tokenizers/ID.json       each leaf's tokenizer in the format of the library `tokenizers`
    predictions/ID.safetensors   the predictions of each predictions file
    transformers/            for a single leaf: the encoder (and its classifier) in the format of `transformers`
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import MtrunError, Problem, UsageError, clean
from ...files import copy_new, make_folder, parse_json, reported, write_bytes
from ...parts.suites import Suite
from ...plan.plan import Plan
from ...plan.predict import finished
from ...project import Project
from ...registry.manifest import LIMIT, json_with_checksum, parse_manifest
from ...registry.registry import EPOCHS, HISTORY, LOG, MANIFEST, PREDICTIONS, WEIGHTS, Registry
from ...results.replan import spec_files
from ...results.result import COSTS
from ...specs.loader import Loader
from ...specs.spec import Filed, Leaf, Node, Spec, Tree
from ...specs.stored_run import suite_of
from ...tasks.data import Data
from ...tasks.predictions import Predictions
from ...worker.executors.inline import Inline
from ..build import Build
from ..scheduler import Scheduler
from . import archive as archives
from .archive import Archive, Content
from .record import FileEntry, Record, data_of_labels, labels

RECORD = "bundle.json"

PREDICTIONS_LIMIT = 1 << 32
"""Maximum bytes of a predictions file."""

FILE_LIMIT = 1 << 26
"""Maximum bytes of the record, of a file of labels and of a result."""

NEWER = re.compile(r"tree(\.members\.\d+)*\.digest|spec|settings\.\d+")
"""Keys that are missing in results of older versions."""

RUN_FILES = (MANIFEST, PREDICTIONS, EPOCHS, WEIGHTS, HISTORY, LOG)

_KNOWN = re.compile("|".join([
    r"specs/.+\.(toml|csv|tsv|safetensors)", rf"registry/[0-9a-f]{{12}}/({'|'.join(map(re.escape, RUN_FILES))})",
    r"results/[^/]+/[^/]+\.json", r"(labels|tokenizers)/[0-9a-f]{12}\.json",
    r"predictions/[0-9a-f]{12}\.safetensors", r"transformers/([^/]+/)?[^/]+\.(json|safetensors|txt)"]))
"""Paths of the files in a bundle: none is code, and only those in `specs/` can be read as specs."""


@dataclass(frozen=True)
class _SeparateCache(Registry):
    """A registry with another cache folder, so that results are recomputed and not read from the cache."""

    cache_folder: Path

    @property
    def cache(self) -> Path:
        """Folder of files that can be computed again at any time."""
        return self.cache_folder


def compute_results(record: Record, runs: Path, data: Mapping[str, Data], filed: Mapping[str, Predictions],
                    project: Path, costs: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """Compute the results of a record's systems, as bytes by name, from the registry `runs` and predictions files.

    `project` may have parts of its own; `costs` are files of known costs by name. Raise MtrunError where a node fails.
    """
    with tempfile.TemporaryDirectory(prefix="mtrun-") as name:
        folder = Path(name)
        for file, content in (costs or {}).items():
            write_bytes(folder / file, content)
        plan = record.plan(_SeparateCache(runs, folder / "cache"), data, filed, project)
        work = Build(plan, Scheduler(plan.registry, project, Inline(), jobs=1), folder / "results")
        failed = [event for event in work.events() if event.event in ("failed", "damaged")]
        if failed:
            raise MtrunError(*(Problem(text.removeprefix("error: ")) for event in failed
                               for text in event.values["problems"]))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("results/*/*.json")}


# Export --------------------------------------------------------------------------------------------------------------


def files(plan: Plan, settings: Sequence[str], extra: Mapping[str, Content]) -> dict[str, Content]:
    """Return the files of the bundle of a plan, with the files `extra`. Raise UsageError, RegistryError."""
    runs = [run for root in plan.roots.values() for run in finished(plan, root).values()]
    record = Record.of(plan, settings)
    data = {suite: plan.data[suite] for suite in record.suites}
    scores = [node.spec.path for node in plan.nodes.values() if isinstance(node.spec, Filed)]
    specs = [*plan.files, *scores]
    contents: dict[str, Content] = {f"specs/{_below_specs(path, plan.project)}": path for path in specs}
    for run in runs:
        run.verify()
        contents |= {f"registry/{run.id}/{name}": run.folder / name for name in (MANIFEST, *run.manifest["files"])}
    contents |= compute_results(record, plan.registry.root, data, plan.filed, plan.project)
    contents |= {f"predictions/{id}.safetensors": plan.filed[id].to_bytes() for id in record.filed}
    contents |= {f"labels/{suite[:12]}.json": labels(data[suite]) for suite in data}
    contents |= extra
    entries = {name: _file_entry(content) for name, content in contents.items()}
    return {**contents, RECORD: record.model_copy(update={"files": entries}).to_bytes()}


def _below_specs(path: Path, project: Path) -> str:
    """Return a file's path relative to the folder of specs. Raise UsageError where it is outside of it."""
    if not path.is_relative_to(Project(project).specs):
        raise UsageError(f"{path} is outside {project / 'specs'}, and only what is in there can be exported")
    return path.relative_to(Project(project).specs).as_posix()


def _file_entry(content: Content) -> FileEntry:
    """Return size and sha256 of a file's content."""
    if isinstance(content, bytes):
        return FileEntry(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    with reported("read", content), content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(size=file.tell(), sha256=digest)


# Reading -------------------------------------------------------------------------------------------------------------


class Bundle:
    """An untrusted bundle to read from; every file is used only after its sha256 was verified."""

    def __init__(self, archive: Archive) -> None:
        """Read the record. Raise DataError where files are missing, of another size or not files of a bundle."""
        self.archive = archive
        self.record = Record.from_bytes(archive.read(RECORD, FILE_LIMIT), f"{archive.path}: {RECORD}")
        claimed = {name: entry.size for name, entry in self.record.files.items()}
        present = {name: size for name, size in archive.sizes.items() if name != RECORD}
        if claimed != present:
            names = sorted(name for name in {*claimed, *present} if claimed.get(name) != present.get(name))
            raise archive.error(f"{names[0]} is missing, foreign or of another length than its record says")
        if foreign := [name for name in claimed if not _KNOWN.fullmatch(name)]:
            raise archive.error(f"{foreign[0]} is no file of a bundle")

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield a file in chunks. Raise DataError after the last one where the sha256 is not that of the record."""
        digest = hashlib.sha256()
        for chunk in self.archive.chunks(name):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != self.record.files[name].sha256:
            raise self.archive.error(f"{name} is damaged: it is not what was written")

    def read(self, name: str, limit: int = FILE_LIMIT) -> bytes:
        """Read a file of at most `limit` bytes. Raise DataError where it is missing, too large or damaged."""
        if self.record.files[name].size > limit if name in self.record.files else True:
            raise self.archive.error(f"{name} is missing or over {limit:,} bytes")
        return b"".join(self.chunks(name))

    def verify(self) -> None:
        """Verify all files. Raise DataError for the first damaged one."""
        for name in self.record.files:
            for _ in self.chunks(name):
                pass

    def below(self, folder: str) -> list[str]:
        """Return the names of the files below a folder."""
        return [name for name in self.record.files if name.startswith(f"{folder}/")]

    def manifest(self, id: str) -> bytes:
        """Return a run's manifest. Raise DataError where it does not match the run and its files in the bundle."""
        folder = f"registry/{id}"
        data = self.read(f"{folder}/{MANIFEST}", LIMIT)
        try:
            manifest = parse_manifest(data)
        except ValueError as error:
            raise self.archive.error(f"the manifest of {id} is damaged: {error}") from None
        files = {f"{folder}/{name}": entry for name, entry in manifest["files"].items()}
        recorded = {name: self.record.files[name].model_dump() for name in self.below(folder)}
        recorded.pop(f"{folder}/{MANIFEST}")
        if manifest["id"] != id or files != recorded:
            raise self.archive.error(f"the manifest of {id} is of another run or of other files")
        return data

    def data(self) -> dict[str, Data]:
        """Return the suites' data, with ids and labels only, by the sha256 of their content."""
        names = {sha: f"labels/{sha[:12]}.json" for sha in self.record.suites}
        return {sha: data_of_labels(suite, self.read(names[sha]), f"{self.archive.path}: {names[sha]}")
                for sha, suite in self.record.suites.items()}

    @contextmanager
    def unpacked(self, project: Path) -> Iterator[Path]:
        """Yield a temporary project with the bundle's specs and its runs without weights, and a project's own parts."""
        with tempfile.TemporaryDirectory(prefix="mtrun-") as name:
            folder = Path(name)
            for file in self.below("specs"):
                write_bytes(folder / file, self.read(file, PREDICTIONS_LIMIT))
            for id in self.record.runs:
                self._copy_without_weights(id, Registry(Project(folder).registry))
            if Project(project).parts.is_dir():
                Project(folder).parts.symlink_to(Project(project).parts.resolve())
            yield folder

    def loader(self, folder: Path) -> tuple[Loader, dict[str, Spec]]:
        """Load the specs in the folder of `unpacked`; return their nodes by name. Raise SpecError."""
        loader = Loader(folder, self.record.profile, self.record.settings, needs_files=False)
        stems = {name.partition("@")[0] for name in self.record.systems}
        specs = [folder / spec for spec in sorted(set(self.record.specs.values()))] or [
            path for path in spec_files(folder) if path.stem in stems]  # records of older versions lack `specs`
        return loader, {node.name: node for nodes in loader.load_all(specs) for node in nodes}

    def unverified_labels(self, project: Path) -> list[str]:
        """Compare tasks and labels with the project's own data; return the names of suites for which it has none.

        Raise DataError where they are not those of the data whose hash the bundle names.
        """
        local: dict[str, Data] = {}
        for suite in self._suites(project):
            with contextlib.suppress(MtrunError):
                data = suite.load(project)
                local[data.sha256()] = data
        for sha, tasks in self.record.suites.items():
            name = f"labels/{sha[:12]}.json"
            if sha in local and (list(local[sha].tasks.items()) != list(tasks.tasks)
                                 or parse_json(labels(local[sha])) != self._json(name)):
                raise self.archive.error(f"{name} are not the labels, or not of the tasks, of the data with that hash")
        return [f"{suite.name} ({sha[:12]})" for sha, suite in self.record.suites.items() if sha not in local]

    def _json(self, name: str) -> Any:
        """Return the content of a JSON file. Raise DataError."""
        try:
            return parse_json(self.read(name))
        except ValueError as error:
            raise self.archive.error(f"{name} is not JSON: {error}") from None

    def _suites(self, project: Path) -> list[Suite]:
        """Return the suites that the bundle's specs and runs name, as far as they are valid."""
        suites: list[Suite | None] = []
        with self.unpacked(project) as folder:
            for run in Registry(Project(folder).registry).runs():
                with contextlib.suppress(MtrunError):
                    suites.append(suite_of(run, project))
            with contextlib.suppress(MtrunError):
                loader, nodes = self.loader(folder)
                suites += [leaf.model.suite for node in nodes.values() for leaf in leaves(node)]
                suites.append(loader.suite())
        return list({suite.model_dump_json(): suite for suite in suites if suite}.values())

    def recomputed(self, project: Path) -> dict[str, tuple[bytes, bytes]]:
        """Return each result as stored in the bundle and as recomputed from its predictions, by name.

        Costs of runs that are not in the bundle, such as of a soup's members, are taken from the bundle.
        """
        filed = {id: Predictions.from_bytes(self.read(f"predictions/{id}.safetensors", PREDICTIONS_LIMIT), id)
                 for id in self.record.filed}
        stored = {name: self.read(name) for name in self.below("results")}
        costs = {name: content for name, content in stored.items() if Path(name).name == COSTS}
        with self.unpacked(project) as folder:
            computed = compute_results(self.record, Project(folder).registry, self.data(), filed, project, costs)
        if stored.keys() != computed.keys():
            raise self.archive.error(f"{min(stored.keys() ^ computed.keys())} is not the result of one of its systems")
        return {name: (stored[name], computed[name]) for name in sorted(computed)}

    def _copy_without_weights(self, id: str, registry: Registry) -> None:
        """Copy a run without its weights into a temporary registry."""
        manifest = {key: value for key, value in parse_manifest(self.manifest(id)).items() if key != "sha256"}
        manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name != WEIGHTS}
        make_folder(registry.root / id)
        for name in manifest["files"]:
            copy_new(registry.root / id / name, self.chunks(f"registry/{id}/{name}"))
        copy_new(registry.root / id / MANIFEST, [json_with_checksum(manifest)])


def leaves(node: Node) -> Iterator[Leaf]:
    """Yield the models in a loaded spec."""
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, Tree):
        for child in node.ensemble.children():
            yield from leaves(child)


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """Open a bundle for reading. Raise DataError where it is not valid, StorageError."""
    with archives.opened(path) as archive:
        yield Bundle(archive)


# Comparison ----------------------------------------------------------------------------------------------------------


def differences(name: str, stored: bytes, computed: bytes) -> list[str]:
    """Return a line for each value in which a stored and a recomputed result differ."""
    try:
        old = dict(_values(parse_json(stored)))
    except ValueError:
        return [f"{name} is not a result"]
    new = dict(_values(parse_json(computed)))
    return [clean(f"{name}: {key} is {old.get(key)} in the bundle, {new.get(key)} computed again")
            for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)
            and (key in old or not NEWER.fullmatch(key))]


def numbers(result: bytes) -> int:
    """Return the number of numeric values in a result."""
    return sum(isinstance(value, int | float) and not isinstance(value, bool)
               for _, value in _values(parse_json(result)))


def _values(value: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of each scalar inside nested lists and tables."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(item, f"{above}.{key}" if above else str(key))
    else:
        yield above, value
