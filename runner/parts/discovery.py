"""Find parts by family and name, their documentation, their sources and the hashes of these.

`find(Head, "linear")` imports `runner/parts/heads/linear.py`, else the project's own `parts/heads/linear.py`. A file's
existence registers it. The file defines one subclass of the family's base class, which its docstring describes.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic.fields import FieldInfo

from ..files import reported, sha256
from ..lazy import SLOW, deferred
from ..part import Part
from ..project import Project


@cache
def documented(part: type[Part]) -> Mapping[str, FieldInfo]:
    """Return a part's fields, each with the string below it as its description.

    pydantic can do so itself, whenever a class is made: a fifth of what a plan takes.
    """
    about = dict[str, str]()
    for base in reversed(part.__mro__):
        about |= _strings(base) if issubclass(base, Part) else {}
    for name, field in part.model_fields.items():
        field.description = field.description or about.get(name)
    return part.model_fields


def _strings(cls: type) -> dict[str, str]:
    """Return the strings below the fields in a class's source; none where there is no source."""
    with suppress(OSError, TypeError, SyntaxError):
        (made,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        return {field.target.id: inspect.cleandoc(text.value.value) for field, text in pairwise(made.body)
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)} if isinstance(made, ast.ClassDef) else {}
    return {}


P = TypeVar("P", bound=Part)


def family(base: type[Part]) -> str:
    """Return the name of the folder that holds a family's files: `heads` for `Head`."""
    return base.__module__.rpartition(".")[2]


def is_family(base: type) -> bool:
    """Tell whether a class is a family's base, so that a `type` must say which of its parts is meant."""
    return inspect.isabstract(base)


def names(base: type[Part], project: Path | None = None) -> list[str]:
    """Return the names of all parts of a family, the package's own and the project's."""
    folders = [Path(inspect.getfile(base)).parent] + ([Project(project).parts / family(base)] if project else [])
    return sorted({f.stem for folder in folders for f in folder.glob("[a-z]*.py")})


def find(base: type[P], name: str, project: Path | None = None) -> type[P] | None:
    """Return the class of a part by its name, or None where no file of that name exists."""
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
    """Import a project's own part from its file."""
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    with deferred(*SLOW):
        spec.loader.exec_module(module)
    return module


def _only_class(module: ModuleType, base: type[P]) -> type[P]:
    """Return the one class of a part's file."""
    found = [c for c in vars(module).values()
             if isinstance(c, type) and issubclass(c, base) and c.__module__ == module.__name__]
    if len(found) != 1:
        raise TypeError(f"{module.__file__} must define exactly one {base.__name__}, it defines {len(found)}")
    return found[0]


def sources(value: Any) -> dict[str, Path]:
    """Return the source file of every part inside a value and of its family's base: `heads/cosine.py` -> its path."""
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
    """Return the fingerprint of each of its `sources`."""
    return {file: fingerprint(path) for file, path in sources(value).items()}


def fingerprint(path: Path) -> str:
    """Return what is recorded of a source file: `TEXT.CODE`, 12 hex digits for its text and for its code.

    Equal texts are quickly compared; where they differ, `code_hash` tells whether what is computed differs, too.
    """
    return f"{sha256(path)[:12]}.{code_hash(path)}"


def code_hash(path: Path) -> str:
    """Return 12 hex digits of the sha256 over a file's syntax tree without docstrings and imports of mtrun's own.

    So a comment, a docstring or a file that is moved changes no hash. The same for Python 3.11 and later.
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
    """Feed a node to a hash: its kind, and each field that is set, by name."""
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
    """Return statements without the strings that stand alone, which are docstrings, and without imports of mtrun's own.

    Those say where a file lies; what is imported from elsewhere says what is computed.
    """
    def is_ours(item: Any) -> bool:
        return isinstance(item, ast.ImportFrom) and (item.level > 0 or f"{item.module}.".startswith("runner."))

    def is_said(item: Any) -> bool:
        return isinstance(item, ast.Expr) and isinstance(item.value, ast.Constant) and isinstance(item.value.value, str)

    return [item for item in body if not is_ours(item) and not is_said(item)]
