"""Read folders of results: select results of one set of replicas, and report the others.

An id identifies a spec, a digest the predictions of a run: leaves that two machines trained from one spec have the same
id and, as a rule, different digests. They are replicas, and a table never mixes them.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import MtrunError, Place, Problem, RegistryError, UsageError
from ..files import reported
from ..project import Project
from ..registry.registry import Registry
from ..specs.spec_files import PUBLISHED
from .result import COSTS, SIGNIFICANCE, Result, ResultNode
from .significance import Significance

SHOWN = 5
"""Maximal number of files in a note."""


@dataclass(frozen=True)
class ResultFolder:
    """The results of one profile, all from one set of replicas, with the results left out and the problems."""

    path: Path
    files: Mapping[Path, Result]
    """The results by file."""
    left_out: Mapping[Path, Result] = field(default_factory=dict)
    """Results of other replicas than those of `files`."""
    significance: Significance = field(default_factory=Significance)
    """Intervals and tests of the results."""
    problems: Sequence[Problem] = ()
    """Unreadable files and contradictory results; after a contradiction, `files` is empty."""

    @property
    def results(self) -> list[Result]:
        """The results in the order of their files."""
        return list(self.files.values())

    @property
    def profile(self) -> str:
        """Name of the profile, `published/NAME` for what the repository publishes of it."""
        path = self.path.resolve()
        return f"{PUBLISHED}/{path.name}" if path.parent.name == PUBLISHED else path.name

    @property
    def notes(self) -> list[str]:
        """Notes for the user about the results left out."""
        if not self.left_out:
            return []
        names = [path.name for path in self.left_out]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return [f"left out, since made of other replicas of some runs than the results shown: "
                f"{', '.join(names[:SHOWN])}{more}; `mtrun build` of their specs scores them again from the runs here"]


def read(folder: Path) -> list[ResultFolder]:
    """Read a folder of results with one folder per profile; `folder` may also be that of one profile.

    Fall back to the published results of the repository. Raise UsageError if there are no results.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder of results at {folder}")
    for above in (folder, folder / PUBLISHED):
        profiles = [above, *sorted(path for path in _listed(above) if path.is_dir() and path.name != PUBLISHED)]
        if folders := [read_profile(path) for path in profiles if result_files(path)]:
            return folders[:1] if folders[0].path == folder else folders
    raise UsageError(f"there are no results in {folder}: `mtrun build SPEC` makes some")


def read_profile(folder: Path) -> ResultFolder:
    """Read the results in the folder of one profile. Raise StorageError if it cannot be listed."""
    files, problems = read_files(folder)
    significance = Significance()
    try:
        significance = Significance.read(folder)
    except RegistryError as error:
        problems += error.problems
    is_published = folder.resolve().parent.name == PUBLISHED  # published results do not depend on the registry
    kept = _one_set(files, None if is_published else Registry(Project.of(folder / "results").registry))
    if damage := list(_contradictions(kept)):
        return ResultFolder(folder, {}, problems=[*problems, *damage])
    left_out = {path: files[path] for path in files if path not in kept}
    return ResultFolder(folder, kept, left_out, significance, problems)


def read_files(folder: Path, names: Container[str] | None = None) -> tuple[dict[Path, Result], list[Problem]]:
    """Return the results in the folder of one profile by file, and the problems of files that are no valid results.

    `names` limits them to the results of these names.
    """
    files, problems = dict[Path, Result](), list[Problem]()
    for path in result_files(folder):
        if names is not None and path.stem not in names:
            continue
        try:
            with reported("read", path):
                if not stat.S_ISREG(path.stat().st_mode):
                    raise OSError(errno.EINVAL, "it is not a regular file")  # a pipe would never end
                data = path.read_bytes()
            files[path] = Result.from_json(data, str(path))
        except MtrunError as error:
            if os.path.lexists(path):  # else it has just been removed
                problems += error.problems
    return files, problems


def result_files(folder: Path) -> list[Path]:
    """Return the files of results in the folder of one profile, without hidden files."""
    return sorted(path for path in _listed(folder)
                  if path.suffix == ".json" and path.name not in (COSTS, SIGNIFICANCE))


def _listed(folder: Path) -> list[Path]:
    """Return the paths in a folder that are not hidden; an empty list if there is no folder."""
    with reported("read", folder):
        return [path for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []


def _one_set(files: Mapping[Path, Result], registry: Registry | None) -> dict[Path, Result]:
    """Return results without two replicas of one node, in the order of their files.

    Results of the runs in the registry come first, then those whose replicas occur in most other results.
    """
    files = _of_runs_here(files, registry)
    nodes = {path: {node.id: node for node in result.tree.nodes()} for path, result in files.items()}
    held = Counter((node.id, node.answer) for by_id in nodes.values() for node in by_id.values())
    replicas = Counter(id for id, _ in held)
    if all(count == 1 for count in replicas.values()):
        return dict(files)
    total = Counter(id for by_id in nodes.values() for id in by_id)

    def sort_key(path: Path) -> tuple[float, int, str]:
        shares = [held[node.id, node.answer] / total[node.id] for node in nodes[path].values()]
        return -sum(shares) / len(shares), -len(shares), path.name

    chosen: dict[str, str] = {}
    kept = set()
    for path in sorted(files, key=sort_key):
        answers = {id: node.answer for id, node in nodes[path].items()}
        if all(chosen.get(id, answer) == answer for id, answer in answers.items()):
            chosen |= answers
            kept.add(path)
    return {path: result for path, result in files.items() if path in kept}


def _of_runs_here(files: Mapping[Path, Result], registry: Registry | None) -> dict[Path, Result]:
    """Drop results of other replicas than the runs in the registry; return all results if none is of these runs."""
    if registry is None:
        return dict(files)
    ids = {leaf.id for result in files.values() for leaf in result.tree.leaves() if leaf.digest}
    digests = {id: digest for id in ids if (digest := run_digest(registry, id))}
    pairs = {path: {(digests[leaf.id], leaf.digest)
                    for leaf in result.tree.leaves() if leaf.digest and leaf.id in digests}
             for path, result in files.items()}
    others = {path for path, of_leaves in pairs.items() if any(here != held for here, held in of_leaves)}
    has_matches = any(of_leaves and path not in others for path, of_leaves in pairs.items())
    return {path: result for path, result in files.items() if path not in others or not has_matches}


def run_digest(registry: Registry, id: str) -> str | None:
    """Return the digest of the predictions of a finished run, or None if there is no readable run."""
    try:
        run = registry.find_by_manifest(id)
    except MtrunError:
        return None
    return run.digest if run else None


def _contradictions(files: Mapping[Path, Result]) -> Iterable[Problem]:
    """Yield a problem for each node that has different scores in two results though its predictions are the same."""
    first: dict[str, tuple[Path, ResultNode]] = {}
    reported_ids = set()
    for path, result in files.items():
        for node in result.tree.nodes():
            where, other = first.setdefault(node.id, (path, node))
            if node.id not in reported_ids and (node.scores, node.honest) != (other.scores, other.honest):
                reported_ids.add(node.id)
                yield Problem(
                    f"`{node.name or node.what}` ({node.id}) has other scores here than in {where.name}, though made "
                    "of the same predictions: one of the two was changed by hand, or another version of mtrun made it",
                    Place(str(path)), hint=f"`{_build(files[where], where)}` and `{_build(result, path)}` score both "
                                           "again; without their runs, remove the one that is wrong")


def _build(result: Result, path: Path) -> str:
    """Return the command that builds a result."""
    spec = result.spec or f"specs/{path.stem.partition('@')[0]}.toml"
    settings = [word for setting in result.settings for word in ("--set", setting)]
    return shlex.join(["mtrun", "build", spec, "--profile", result.profile, *settings])
