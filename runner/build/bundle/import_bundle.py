"""Import of a bundle's runs, specs and results into a project, after all files were verified."""

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
from ...registry.registry import Registry, Run
from ...registry.reservations import reserved
from ...results.result import COSTS, SIGNIFICANCE, Result
from ...specs.executables import executables
from ...specs.spec_files import ENDING
from .bundle import PREDICTIONS_LIMIT, Bundle, differences
from .identity import check_nodes

BESIDE = (COSTS, SIGNIFICANCE)
"""Files about all results of a profile; a project's own ones are kept until its next build."""

LINE_WIDTH = 400
"""Width at which texts that would be executed are wrapped, so that none is truncated in a message."""


def executable_settings(bundle: Bundle, project: Path) -> list[str]:
    """Return wrapped lines for all settings in a bundle's new specs that make this machine execute something.

    Raise SpecError for a spec that is not TOML, DataError for a damaged file.
    """
    names = [name for name in bundle.below("specs") if name.endswith(ENDING) and not os.path.lexists(project / name)]
    settings = executables({name: bundle.read(name) for name in names}, bundle.record.settings)
    return [line for setting in settings
            for line in wrap(str(setting), LINE_WIDTH, drop_whitespace=False, break_on_hyphens=False)]


def import_into(bundle: Bundle, project: Path, trusted: bool = False) -> list[str]:
    """Copy runs, specs and results of a bundle into a project without overwriting any; return the new names.

    Where the project has a run of the same id, or the result of the same system, its own is kept.
    Raise DataError for damaged files, UsageError where an untrusted bundle has executable settings or the project has
    other files of the same names, StorageError where a run of the project cannot be read; then nothing was copied.
    """
    bundle.verify()
    texts = {name: bundle.read(name, PREDICTIONS_LIMIT) for name in (*bundle.below("specs"), *bundle.below("results"))}
    other = [name for name, content in texts.items() if Path(name).name not in BESIDE
             and _differs(project / name, content) and not _is_replica(project / name, content)]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        raise UsageError(Problem(f"the project has other files of the same names: {', '.join(other[:3])}{more}",
                                 hint="import into a folder of its own: `mtrun import BUNDLE DIR`"))
    if not trusted and (executed := executable_settings(bundle, project)):
        command = shlex.join(["mtrun", "import", "--trust", str(bundle.archive.path), str(project)])
        raise UsageError(Problem("this bundle says what is to be run on this machine, and so it is not taken",
                                 Place(str(bundle.archive.path)), tuple(executed),
                                 f"if you trust whoever made it, `{command}` takes it"))
    _check_results(bundle, project)
    check_nodes(bundle, project)
    for id in bundle.record.runs:
        with contextlib.suppress(RegistryError):  # a damaged one is replaced
            Registry(Project(project).registry).find(id)
    with reserved(Registry(Project(project).registry)) as reservation:  # until specs and results refer to the runs
        reservation.hold(bundle.record.runs)
        new = [f"registry/{id}" for id in bundle.record.runs if _copy_run(bundle, id, project)]
        for name, content in texts.items():
            if not (project / name).exists():
                write_bytes(project / name, content)
                new.append(name)
    return new


def _check_results(bundle: Bundle, project: Path) -> None:
    """Raise DataError where results of a bundle do not follow from the predictions and labels in it."""
    bundle.unverified_labels(project)
    wrong = [line for name, (stored, computed) in bundle.recomputed(project).items()
             for line in differences(name, stored, computed)]
    if wrong:
        more = [f"and {len(wrong) - 3} more"] if len(wrong) > 3 else []
        raise DataError(Problem("the results in this bundle are not those of its predictions, and so it is not taken",
                                Place(str(bundle.archive.path)), (*wrong[:3], *more),
                                f"`mtrun reproduce {shlex.quote(str(bundle.archive.path))}` shows all differences"))


def _is_replica(path: Path, content: bytes) -> bool:
    """Return whether the project's result is one of the same system; it is kept, as the runs that it is made of are."""
    with contextlib.suppress(MtrunError, OSError):
        return Result.from_json(path.read_bytes(), str(path)).tree.id == Result.from_json(content, path.name).tree.id
    return False


def _differs(path: Path, content: bytes) -> bool:
    """Return whether there is a file of other content at a path."""
    with reported("read", path), contextlib.suppress(FileNotFoundError):
        return path.is_symlink() or path.read_bytes() != content
    return False


def _copy_run(bundle: Bundle, id: str, project: Path) -> bool:
    """Copy a run into the project's registry; return False where it is there already."""
    registry = Registry(Project(project).registry)
    if _find_sound(registry, id):
        return False
    staged = registry.attempts / f"staged-{id}-{uuid4().hex[:8]}"  # unique, since several imports may run at a time
    make_folder(staged)
    try:
        for name in bundle.below(f"registry/{id}"):
            copy_new(staged / name.rpartition("/")[2], bundle.chunks(name))
        return publish(staged, registry.root / id)
    finally:
        remove(staged)


def _find_sound(registry: Registry, id: str) -> Run | None:
    """Return a run as `Registry.find` does; set a damaged one aside, unless it is in training, and return None."""
    try:
        return registry.find(id)
    except RegistryError:
        with registry.claim(id) as lease:
            if lease is not None:
                registry.set_aside(id)
        return None
