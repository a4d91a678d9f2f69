"""Create projects and parts from the templates beside this file."""

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
    "regularizer": "regularizers", "encoder": "encoders", "adapter": "adapters", "ensemble": "ensembles",
    "suite": "suites", "executor": "executors",
}
"""Folder of each family, by the singular of its name."""

DEMO = """\
By default a build uses the profile `demo`: a small encoder from scratch, on generated sentences. For data of your own,
fill in `specs/suites/mine.toml` and build with `--profile mine`; a file `mtrun.toml` beside this one with the line
`profile = "mine"` makes it that of all commands."""

OWN = "`mtrun.toml` names the profile of all commands, `mine`; `--profile NAME` or `MTRUN_PROFILE=NAME` takes another."
"""What README.md says of profiles in a project for data files."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def init(folder: Path, extra: Mapping[Path, bytes], specs: Mapping[Path, bytes] | None = None) -> list[Path]:
    """Create a project with `extra` files; return the paths written. Raise UsageError where a file exists.

    `specs` replace those of the template, if given.
    """
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not above.is_dir():
        raise UsageError(f"{above} is a file, so that no project can be made in {folder}")
    source = TEMPLATES / "project"
    files = {path.relative_to(source): path.read_bytes() for path in source.rglob("*") if path.is_file()}
    files[Path(".gitignore")] = files.pop(Path("gitignore"))
    if specs:
        files = {path: data for path, data in files.items() if path.parts[0] != "specs"} | dict(specs)
    page = Template(files[Path("README.md")].decode())
    spec, profiles = ("first.toml", OWN) if specs else ("ensemble.toml", DEMO)
    files[Path("README.md")] = page.substitute(spec=spec, profiles=profiles).encode()
    return _write({folder / path: data for path, data in (files | dict(extra)).items()})


def new(family: str, name: str, project: Path) -> Path:
    """Create a part of a family in a project and return its path. Raise UsageError for an invalid or taken name."""
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
    """Return a class name for a part that does not occur in the template."""
    name = "".join(word.capitalize() for word in name.split("_"))
    return f"{name}Part" if re.search(rf"\b{name}\b", template) else name


def _a(word: str) -> str:
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _write(files: Mapping[Path, bytes]) -> list[Path]:
    """Write new files, all or none; return their paths. Raise UsageError where one exists."""
    taken = sorted(str(path) for path in files if path.exists() or path.is_symlink())
    if taken:
        notes = tuple(f"{path} is there already" for path in taken[:5])
        raise UsageError(Problem("nothing was written, since nothing is overwritten", notes=notes))
    for path, data in files.items():
        write_bytes(path, data)
    return sorted(files)
