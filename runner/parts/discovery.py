"""Discovery of parts by family and name, their documentation, source files and code hashes.

`find(Head, "linear")` imports `runner/parts/heads/linear.py`, else the project's own `parts/heads/linear.py`. There is
no registration: a file in the folder is a part. It defines exactly one subclass of the family's base class.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from ..errors import Place, Problem, TrainingError
from ..files import reported, sha256
from ..lazy import SLOW, deferred
from ..part import Part
from ..project import Project


@cache
def documented(part: type[Part]) -> Mapping[str, FieldInfo]:
    """Return a part's fields with the string literals below them as descriptions.

    pydantic's `use_attribute_docstrings` does the same for every class that is defined, a fifth of the time of a plan.
    """
    descriptions = dict[str, str]()
    for base in reversed(part.__mro__):
        descriptions |= _strings(base) if issubclass(base, Part) else {}
    for name, field in part.model_fields.items():
        field.description = field.description or descriptions.get(name)
    return part.model_fields


def _strings(cls: type) -> dict[str, str]:
    """Return the string literals below the fields in a class's source by field; {} if there is no source."""
    with suppress(OSError, TypeError, SyntaxError):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        return {field.target.id: inspect.cleandoc(text.value.value) for field, text in pairwise(definition.body)
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)} if isinstance(definition, ast.ClassDef) else {}
    return {}


P = TypeVar("P", bound=Part)


def family(base: type[Part]) -> str:
    """Return the folder name of a family, such as `heads` for `Head`."""
    return base.__module__.rpartition(".")[2]


def is_family(base: type) -> bool:
    """Return whether a class is the base of a family, so that a spec must select a part by `type`."""
    return inspect.isabstract(base)


def names(base: type[Part], project: Path | None = None) -> list[str]:
    """Return the names of all parts of a family, built-in and the project's own."""
    folders = [Path(inspect.getfile(base)).parent] + ([Project(project).parts / family(base)] if project else [])
    return sorted({f.stem for folder in folders for f in folder.glob("[a-z]*.py")})


def find(base: type[P], name: str, project: Path | None = None) -> type[P] | None:
    """Return the class of a part by name, or None if there is no such file."""
    if not name.isidentifier():
        return None
    module_name = f"{base.__module__}.{name}"
    if importlib.util.find_spec(module_name):
        with deferred(*SLOW):
            module = importlib.import_module(module_name)
    else:
        path = Project(project or Path()).parts / family(base) / f"{name}.py"
        if not path.is_file():
            return None
        module = _own(path, f"parts.{family(base)}.{name}")
    return _only_class(module, base)


def _own(path: Path, module_name: str) -> ModuleType:
    """Import the file of a project's own part."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    with deferred(*SLOW):
        spec.loader.exec_module(module)
    return module


def error_in_own_part(error: BaseException) -> TrainingError | None:
    """Return the error of ours that an exception stands for which a project's own part raised; None for any other.

    Its place is the innermost line of the part's file.
    """
    files = {module.__file__ for name, module in sys.modules.items() if name.startswith("parts.")}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    if not frames:
        return None
    frame = frames[-1]
    place = Place(os.path.relpath(frame.filename), frame.lineno or 0, text=frame.line or "")
    return TrainingError(Problem(f"{type(error).__name__}: {error}", place))


def _only_class(module: ModuleType, base: type[P]) -> type[P]:
    """Return the only subclass of `base` that a module defines."""
    classes = [c for c in vars(module).values()
               if isinstance(c, type) and issubclass(c, base) and c.__module__ == module.__name__]
    if len(classes) != 1:
        raise TypeError(f"{module.__file__} must define exactly one {base.__name__}, it defines {len(classes)}")
    return classes[0]


def sources(value: Any) -> dict[str, Path]:
    """Return the source files of all parts in a value and of their base classes: `heads/cosine.py` -> its path."""
    out: dict[str, Path] = {}
    if isinstance(value, Part):
        if value.type:
            own = Path(inspect.getfile(type(value)))
            base = Path(inspect.getfile(next(c for c in type(value).__mro__ if is_family(c))))
            out |= {f"{own.parent.name}/{path.name}": path for path in (own, base)}
        value = {name: getattr(value, name) for name in type(value).model_fields}
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ():
        out |= sources(item)
    return dict(sorted(out.items()))


def fingerprints(value: Any) -> dict[str, str]:
    """Return the fingerprint of each source file of a value."""
    return {file: fingerprint(path) for file, path in sources(value).items()}


def fingerprint(path: Path) -> str:
    """Return the fingerprint `TEXT.CODE` of a source file: 12 hex digits each of a hash of its text and of its code.

    The text hash is fast to compare; if it differs, the code hash decides whether the computation may differ.
    """
    return f"{sha256(path)[:12]}.{code_hash(path)}"


def code_hash(path: Path) -> str:
    """Return 12 hex digits of the sha256 over a file's syntax tree without docstrings and imports from mtrun.

    Comments, docstrings and moved files do not change it. Equal for all Python versions from 3.11.
    """
    with reported("read", path):
        return code_hash_of(path.read_bytes())


@cache
def code_hash_of(text: bytes) -> str:
    """Return the `code_hash` of a source's text."""
    digest = hashlib.sha256()
    _hashed(ast.parse(text), digest.update)
    return digest.hexdigest()[:12]


def _hashed(node: ast.AST, update: Callable[[bytes], object]) -> None:
    """Update a hash with a node: its type, and each field that is set, by name."""
    update(f"({type(node).__name__}".encode())
    for name, value in ast.iter_fields(node):
        items = _code_of(value) if isinstance(value, list) else [value]
        for item in items:
            if isinstance(item, ast.AST):
                update(f" {name}=".encode())
                _hashed(item, update)
            elif item is not None or isinstance(value, list):
                update(f" {name}={type(item).__name__}:{item!r}".encode())
    update(b")")


def _code_of(body: list[Any]) -> list[Any]:
    """Return statements without docstrings and without imports from mtrun.

    Imports from mtrun depend on where files lie; other imports may change what is computed.
    """
    def is_ours(item: Any) -> bool:
        return isinstance(item, ast.ImportFrom) and (item.level > 0 or f"{item.module}.".startswith("runner."))

    def is_docstring(item: Any) -> bool:
        return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)

    return [item for item in body if not is_ours(item) and not is_docstring(item)]
