"""Folders of results: which of the results of a profile belong together, and what is wrong with the others.

An id says what was asked, a digest which predictions answered it: leaves that two machines trained from one spec have
one id and, as a rule, two digests. They are replicas, and a table never mixes them.
"""

from __future__ import annotations

import errno
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
"""How many files a note names."""


@dataclass(frozen=True)
class ResultFolder:
    """The results of one profile that are made of one set of predictions, and what is to be said of the others."""

    path: Path
    files: Mapping[Path, Result]
    """The results by their files."""
    left_out: Mapping[Path, Result] = field(default_factory=dict)
    """Results that are made of other replicas than `files`."""
    significance: Significance = field(default_factory=Significance)
    """Intervals and tests of the results."""
    problems: Sequence[Problem] = ()
    """Files that cannot be read, and results that contradict one another; then there are no `files`."""

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
        """What a person should know besides the results."""
        if not self.left_out:
            return []
        names = [path.name for path in self.left_out]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return [f"left out, since made of other replicas of some runs than the results shown: "
                f"{', '.join(names[:SHOWN])}{more}; `mtrun build` of their specs scores them again from the runs here"]


def read(folder: Path) -> list[ResultFolder]:
    """Return what is in a folder of results, a profile after the other; `folder` may be that of one profile.

    Where nothing was built yet it is what the repository publishes. Raise UsageError where there are no results.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder of results at {folder}")
    for above in (folder, folder / PUBLISHED):
        profiles = [above, *sorted(path for path in _listed(above) if path.is_dir() and path.name != PUBLISHED)]
        if found := [read_profile(path) for path in profiles if result_files(path)]:
            return found[:1] if found[0].path == folder else found
    raise UsageError(f"there are no results in {folder}: `mtrun build SPEC` makes some")


def read_profile(folder: Path) -> ResultFolder:
    """Return the results in the folder of one profile. Raise StorageError where it cannot be listed."""
    files, problems = read_files(folder)
    significance = Significance()
    try:
        significance = Significance.read(folder)
    except RegistryError as error:
        problems += error.problems
    is_published = folder.resolve().parent.name == PUBLISHED  # whatever runs are here
    kept = _one_set(files, None if is_published else Registry(Project.of(folder / "results").registry))
    if damage := list(_contradictions(kept)):
        return ResultFolder(folder, {}, problems=[*problems, *damage])
    left_out = {path: files[path] for path in files if path not in kept}
    return ResultFolder(folder, kept, left_out, significance, problems)


def read_files(folder: Path, names: Container[str] | None = None) -> tuple[dict[Path, Result], list[Problem]]:
    """Return the results in the folder of one profile by their files, and what is wrong with those that are none.

    Where `names` are given, only the results that are called so.
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
            problems += error.problems
    return files, problems


def result_files(folder: Path) -> list[Path]:
    """Return the files of results in the folder of one profile; hidden ones are not ours."""
    return sorted(path for path in _listed(folder)
                  if path.suffix == ".json" and path.name not in (COSTS, SIGNIFICANCE))


def _listed(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden; nothing where there is no folder."""
    with reported("read", folder):
        return [path for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []


def _one_set(files: Mapping[Path, Result], registry: Registry | None) -> dict[Path, Result]:
    """Return results no two of which hold different replicas of one node, in the order of their files.

    Preferred are those that are of the runs in the registry, then those whose replicas most other results hold, too.
    """
    files = _of_runs_here(files, registry)
    nodes = {path: {node.id: node for node in result.tree.nodes()} for path, result in files.items()}
    held = Counter((node.id, node.answer) for by_id in nodes.values() for node in by_id.values())
    replicas = Counter(id for id, _ in held)
    if all(count == 1 for count in replicas.values()):
        return dict(files)
    total = Counter(id for by_id in nodes.values() for id in by_id)

    def order(path: Path) -> tuple[float, int, str]:
        shares = [held[node.id, node.answer] / total[node.id] for node in nodes[path].values()]
        return -sum(shares) / len(shares), -len(shares), path.name

    chosen: dict[str, str] = {}
    kept = set()
    for path in sorted(files, key=order):
        answers = {id: node.answer for id, node in nodes[path].items()}
        if all(chosen.get(id, answer) == answer for id, answer in answers.items()):
            chosen |= answers
            kept.add(path)
    return {path: result for path, result in files.items() if path in kept}


def _of_runs_here(files: Mapping[Path, Result], registry: Registry | None) -> dict[Path, Result]:
    """Return the results without those of other replicas than the runs in the registry; all where none is of these."""
    if registry is None:
        return dict(files)
    ids = {leaf.id for result in files.values() for leaf in result.tree.leaves() if leaf.digest}
    here = {id: digest for id in ids if (digest := run_digest(registry, id))}
    pairs = {path: {(here[leaf.id], leaf.digest) for leaf in result.tree.leaves() if leaf.digest and leaf.id in here}
             for path, result in files.items()}
    others = {path for path, found in pairs.items() if any(mine != theirs for mine, theirs in found)}
    is_of_them = any(found and path not in others for path, found in pairs.items())
    return {path: result for path, result in files.items() if path not in others or not is_of_them}


def run_digest(registry: Registry, id: str) -> str | None:
    """Return which predictions a finished run has; None where there is none that can be read."""
    try:
        run = registry.find_by_manifest(id)
    except MtrunError:
        return None
    return run.digest if run else None


def _contradictions(files: Mapping[Path, Result]) -> Iterable[Problem]:
    """Yield a problem for each node that two results give different scores made of the same predictions."""
    first: dict[str, tuple[Path, ResultNode]] = {}
    told = set()
    for path, result in files.items():
        for node in result.tree.nodes():
            where, other = first.setdefault(node.id, (path, node))
            if node.id not in told and (node.scores, node.honest) != (other.scores, other.honest):
                told.add(node.id)
                yield Problem(
                    f"`{node.name or node.what}` ({node.id}) has other scores here than in {where.name}, though made "
                    "of the same predictions: one of the two was changed by hand, or another version of mtrun made it",
                    Place(str(path)), hint=f"`{_build(files[where], where)}` and `{_build(result, path)}` score both "
                                           "again; without their runs, remove the one that is wrong")


def _build(result: Result, path: Path) -> str:
    """Return the command that makes a result."""
    spec = result.spec or f"specs/{path.stem.partition('@')[0]}.toml"
    settings = [word for one in result.settings for word in ("--set", one)]
    return shlex.join(["mtrun", "build", spec, "--profile", result.profile, *settings])
