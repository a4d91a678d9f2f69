"""Intake: a bundle's runs, specs and results become a project's own, once all of it was checked."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from textwrap import wrap
from uuid import uuid4

from ...errors import DataError, MtrunError, Place, Problem, RegistryError, UsageError
from ...files import copy_new, make_folder, publish, remove, reported, write_bytes
from ...project import Project
from ...registry.manifest import unsealed
from ...registry.registry import MANIFEST, Registry, Run
from ...registry.reservations import reserved
from ...results.result import COSTS, SIGNIFICANCE, Result
from ...specs.executables import executables
from ...specs.identity import content_id
from ...specs.spec_files import ENDING
from ...specs.stored_run import model_of
from .bundle import PREDICTED, Bundle

BESIDE = (COSTS, SIGNIFICANCE)
"""Files about all results of a profile; those of a project that has results stay as they are until its next build."""


WIDE = 400
"""How many characters of what would be run are told in a line, so that none of them is cut away."""


def foreign(held: Bundle, project: Path) -> list[str]:
    """Return a line, or more where it is long, for each thing in a bundle that says what is run, and that is new.

    Raise SpecError for a spec that is no TOML, DataError for damage.
    """
    names = [name for name in held.below("specs") if name.endswith(ENDING) and not os.path.lexists(project / name)]
    found = executables({name: held.read(name) for name in names}, held.record.settings)
    return [line for one in found for line in wrap(str(one), WIDE, drop_whitespace=False, break_on_hyphens=False)]


def take(held: Bundle, project: Path, trusted: bool = False) -> list[str]:
    """Put runs, specs and results of a bundle into a project; return what was new. Nothing there is overwritten.

    Where the project has a run of the same id, or the result of the same system, its own stays.
    Raise DataError for damage, UsageError where it says what is run and is not trusted, or the project has other files
    of the same names, StorageError where one of its runs cannot be read: then nothing was done.
    """
    held.verify()
    texts = {name: held.read(name, PREDICTED) for name in (*held.below("specs"), *held.below("results"))}
    other = [name for name, content in texts.items() if Path(name).name not in BESIDE
             and _differs(project / name, content) and not _is_replica(project / name, content)]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise UsageError(Problem(f"the project has other files of the same names: {', '.join(other[:3])}{more}",
                                 hint="import into a folder of its own: `mtrun import BUNDLE DIR`"))
    if not trusted and (found := foreign(held, project)):
        command = shlex.join(["mtrun", "import", "--trust", str(held.archive.path), str(project)])
        raise UsageError(Problem("this bundle says what is to be run on this machine, and so it is not taken",
                                 Place(str(held.archive.path)), tuple(found),
                                 f"if you trust whoever made it, `{command}` takes it"))
    for id in held.record.runs:
        _check_id(held, id, project)
        with contextlib.suppress(RegistryError):  # a damaged one gives way
            Registry(Project(project).registry).find(id)
    with reserved(Registry(Project(project).registry)) as mine:  # until specs and results refer to the runs
        mine.hold(held.record.runs)
        new = [f"registry/{id}" for id in held.record.runs if _take_run(held, id, project)]
        for name, content in texts.items():
            if not (project / name).exists():
                write_bytes(project / name, content)
                new.append(name)
    return new


def _is_replica(path: Path, content: bytes) -> bool:
    """Tell whether a result that is there is of the same system: it stays, since it is of the runs that are there."""
    with contextlib.suppress(MtrunError, OSError):
        return Result.from_json(path.read_bytes(), str(path)).tree.id == Result.from_json(content, path.name).tree.id
    return False


def _differs(path: Path, content: bytes) -> bool:
    """Tell whether something else than the content lies at a path."""
    with reported("read", path), contextlib.suppress(FileNotFoundError):
        return path.is_symlink() or path.read_bytes() != content
    return False


def _check_id(held: Bundle, id: str, project: Path) -> None:
    """Raise DataError where a run's id is not made of its spec, as that of a forged run, which builds would reuse."""
    manifest = unsealed(held.manifest(id))
    at = Place(f"{held.archive.path}: registry/{id}/{MANIFEST}")
    content = {"kind": "model", "spec": model_of(manifest["spec"], at, project).canonical(),
               "suite": manifest["suite"].get("sha256"), "inputs": manifest.get("inputs")}
    if content_id(content) != id:
        hint = "another version of mtrun made it, or it is forged; `mtrun reproduce` still shows its numbers"
        raise DataError(Problem(f"the id {id} is not that of the run's spec", at, hint=hint))


def _take_run(held: Bundle, id: str, project: Path) -> bool:
    """Put a run into the project's registry; return False where it is there already."""
    registry = Registry(Project(project).registry)
    if _sound(registry, id):
        return False
    staged = registry.attempts / f"staged-{id}-{uuid4().hex[:8]}"  # its own, since several may import at a time
    make_folder(staged)
    try:
        for name in held.below(f"registry/{id}"):
            copy_new(staged / name.rpartition("/")[2], held.chunks(name))
        return publish(staged, registry.root / id)
    finally:
        remove(staged)


def _sound(registry: Registry, id: str) -> Run | None:
    """Return a run that is there and not damaged to the eye; a damaged one is set aside, unless it is being made."""
    try:
        return registry.find(id)
    except RegistryError:
        with registry.claim(id) as lease:
            if lease is not None:
                registry.set_aside(id)
        return None
