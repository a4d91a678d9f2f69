"""New projects and new parts, copied from the templates beside this file."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template

from ..errors import Problem, UsageError
from ..files import write_bytes

TEMPLATES = Path(__file__).parent / "templates"

FAMILIES = {
    "head": "heads", "loss": "losses", "combiner": "combiners", "optimizer": "optimizers", "schedule": "schedules",
    "regularizer": "regularizers", "encoder": "encoders", "ensemble": "ensembles", "suite": "suites",
    "executor": "executors",
}
"""The folder of each family by what one of its parts is called."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def init(folder: Path, extra: Mapping[Path, bytes]) -> list[Path]:
    """Make a project with some further files; return what was written. Raise UsageError where a file is there."""
    ground = next(one for one in (folder, *folder.parents) if one.exists())
    if not ground.is_dir():
        raise UsageError(f"{ground} is a file, so that no project can be made in {folder}")
    source = TEMPLATES / "project"
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    files[Path(".gitignore")] = files.pop(Path("gitignore"))
    return _write({folder / path: data for path, data in (files | dict(extra)).items()})


def new(family: str, name: str, project: Path) -> Path:
    """Write a part of a family into a project and return its path. Raise UsageError for a name that cannot be."""
    if not (project / "specs" / "profiles").is_dir():
        raise UsageError(Problem("this folder is not in a project", hint="mtrun init DIR makes one"))
    folder = FAMILIES[family]
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        hint = "a name begins with a small letter and goes on in small letters, digits and _"
        raise UsageError(Problem(f"`{name}` cannot be the name of a part", hint=hint))
    if (TEMPLATES.parents[1] / ("worker" if folder == "executors" else "parts") / folder / f"{name}.py").exists():
        hint = "mtrun has it already and would never look at yours: take another name"
        raise UsageError(Problem(f"there is {_a(family)} `{name}`", hint=hint))
    template = (TEMPLATES / "parts" / f"{folder}.txt").read_text(encoding="utf-8")
    text = Template(template).substitute({"name": name, "Class": _class(name, template)})
    return _write({project / "parts" / folder / f"{name}.py": text.encode()})[0]


def _class(name: str, template: str) -> str:
    """Return a name for the class that nothing else in the file has."""
    made = "".join(word.capitalize() for word in name.split("_"))
    return f"{made}Part" if re.search(rf"\b{made}\b", template) else made


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _write(files: Mapping[Path, bytes]) -> list[Path]:
    """Write files, all of them or none: raise UsageError where one is there already."""
    taken = sorted(str(path) for path in files if path.exists() or path.is_symlink())
    if taken:
        notes = tuple(f"{path} is there already" for path in taken[:5])
        raise UsageError(Problem("nothing was written, since nothing is overwritten", notes=notes))
    for path, data in files.items():
        write_bytes(path, data)
    return sorted(files)
