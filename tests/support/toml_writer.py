"""A writer of random TOML documents that knows where it put every key, value and table."""

from __future__ import annotations

import random

import tomli

Path = tuple[str | int, ...]
Span = tuple[int, int]


def accepts(text: str) -> bool:
    """Whether the installed tomli takes this text."""
    try:
        tomli.loads(text)
    except tomli.TOMLDecodeError:
        return False
    return True


TOML_1_1 = accepts("a = {\n}")
SCALARS = (
    "0", "-17", "1_000", "0xdead_beef", "0o7", "0b1", "9223372036854775807", "-9223372036854775808", "1.5", "-2e-3",
    "6.5E+1", "true", "false", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5+01:00",
    "1979-05-27 07:32:00", '""', "''", "'lit # ] } , [ \\'", '"esc \\" # \\\\"', '"\\u00e9 é 😀\\t"',
    '"plain"', '"a = [1"', "'''one'''", '"""one"""',
    "'''\n# not a comment\n[not.a.header]\nit's '' two'''''", '"""\nkey = 1 # no\n"" \\""" \\\n   joined\n""\\\\"""""',
    '"""ends with four""""', "''''starts with one'''",
)
NAMES = (
    "a", "b", "c", "lr", "x-1", "2", "1e5", "é", "a b", "", "a.b", 'say "so"', "it's", "#no", "[t]", "=", "s\\n", "日",
)
GAPS = ("", " ", "  ", "\t")
BREAKS = ("", " ", "\n", "\n  ", " # ] } , \" ''' \n ", "\n\n\t# é [\n")
BARE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


class Writer:
    """Write a random TOML document and record the span of each key, value and table."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.text = draw, ""
        self.spans: dict[tuple[str, Path], Span] = {}
        self.names: dict[Path, list[str]] = {}
        self.section((), 0)

    def put(self, *texts: str) -> Span:
        start = len(self.text)
        self.text += "".join(texts)
        return start, len(self.text)

    def fresh(self, path: Path) -> str:
        """A name that the table does not have yet."""
        used = self.names.setdefault(path, [])
        used.append(self.draw.choice([name for name in NAMES if name not in used]))
        return used[-1]

    def part(self, name: str) -> Span:
        """One key part: bare where it may be and the coin says so, else quoted one way or the other."""
        ways = [name] if name and set(name) <= BARE else []
        ways += [f"'{name}'"] if "'" not in name else []
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        ways += [f'"{escaped}"', '"' + "".join(f"\\U{ord(c):08x}" for c in name) + '"']
        return self.put(self.draw.choice(ways))

    def key(self, parts: list[str]) -> list[Span]:
        spans: list[Span] = []
        for part in parts:
            if spans:
                self.put(self.draw.choice(GAPS), ".", self.draw.choice(GAPS))
            spans.append(self.part(part))
        return spans

    def imply(self, path: Path, span: Span) -> None:
        """A key part that stands for a table, where it is the first to do so."""
        if ("table", path) not in self.spans:
            self.spans["key", path] = self.spans["value", path] = self.spans["table", path] = span

    def pair(self, path: Path, depth: int, between: str) -> None:
        """One key with its value, or two that share all but their last part."""
        parts = [self.fresh(path)]
        while len(parts) < 4 and self.draw.random() < 0.3:
            parts.append(self.fresh((*path, *parts)))
        self.assign(path, parts, depth)
        if len(parts) > 1 and self.draw.random() < 0.3:  # a second key of the same implied table
            self.put(between)
            self.assign(path, [*parts[:-1], self.fresh((*path, *parts[:-1]))], depth)

    def assign(self, path: Path, parts: list[str], depth: int) -> None:
        """A dotted key and its value."""
        spans = self.key(parts)
        self.put(self.draw.choice(GAPS), "=", self.draw.choice(GAPS))
        for i, span in enumerate(spans[:-1], 1):
            self.imply((*path, *parts[:i]), span)
        self.spans["key", (*path, *parts)] = spans[-1]
        self.value((*path, *parts), depth)

    def value(self, path: Path, depth: int) -> None:
        start, kind = len(self.text), self.draw.random()
        if depth > 3 or kind < 0.6:
            self.put(self.draw.choice(SCALARS))
        elif kind < 0.8:
            self.array(path, depth)
        else:
            self.inline(path, depth)
            self.spans["table", path] = start, len(self.text)
        self.spans["value", path] = start, len(self.text)

    def array(self, path: Path, depth: int) -> None:
        self.put("[", self.draw.choice(BREAKS))
        count = self.draw.randrange(4)
        for i in range(count):
            self.value((*path, i), depth + 1)
            self.put(self.draw.choice(BREAKS))
            if i < count - 1 or self.draw.random() < 0.3:
                self.put(",", self.draw.choice(BREAKS))
        self.put("]")

    def inline(self, path: Path, depth: int) -> None:
        breaks = BREAKS if TOML_1_1 else GAPS
        self.put("{", self.draw.choice(breaks))
        count = self.draw.randrange(4)
        for i in range(count):
            self.pair(path, depth + 1, between=",")
            self.put(self.draw.choice(breaks))
            if i < count - 1 or (TOML_1_1 and self.draw.random() < 0.3):
                self.put(",", self.draw.choice(breaks))
        self.put("}")

    def line_end(self) -> None:
        self.put(self.draw.choice(("\n", " # [x] \"y\" = '''\n", "\t\n\n", "\n# é\n\n  ", " \n\t")))

    def header(self, path: Path, brackets: int) -> None:
        """A header, with the places of the tables that it implies."""
        start, _ = self.put("[" * brackets, self.draw.choice(GAPS))
        spans = self.key([part for part in path if isinstance(part, str)])
        self.put(self.draw.choice(GAPS), "]" * brackets)
        whole = start, len(self.text)
        ends = [i for i, part in enumerate(path, 1) if isinstance(part, str)]
        for end, span in zip(ends[:-1], spans, strict=False):
            if isinstance(path[end], str):  # else an array of tables, which its own header has placed
                self.imply(path[:end], span)
        if brackets == 1:
            self.spans["value", path] = self.spans["table", path] = whole
            self.spans["key", path] = spans[-1]
        else:
            array = path[:-1]
            self.spans.setdefault(("key", array), spans[-1])
            self.spans.setdefault(("value", array), whole)
            self.spans["value", path] = self.spans["table", path] = whole
        self.line_end()

    def section(self, path: Path, depth: int) -> None:
        """The pairs of a table, then the headers below it."""
        for _ in range(self.draw.randrange(4)):
            self.pair(path, depth, between="\n")
            self.line_end()
        for _ in range(self.draw.randrange(3) if depth < 3 else 0):
            below = (*path, self.fresh(path))
            kind = self.draw.random()
            if kind < 0.4:
                self.header(below, 1)
                self.section(below, depth + 1)
            elif kind < 0.7:
                for i in range(self.draw.randrange(1, 3)):
                    self.header((*below, i), 2)
                    self.section((*below, i), depth + 1)
            else:  # a header two levels down, and perhaps the one between after it
                deep = (*below, self.fresh(below))
                self.header(deep, 1)
                self.section(deep, depth + 2)
                if self.draw.random() < 0.5:
                    self.header(below, 1)
                    self.section(below, depth + 2)

    def true_places(self) -> dict[tuple[str, Path], tuple[int, int, int, str]]:
        """Every span as line, column, width on its first line, and that line."""
        lines, found = self.text.split("\n"), {}
        for what, (start, end) in self.spans.items():
            before, within = self.text[:start], self.text[start:end].split("\n")[0]
            line = before.count("\n") + 1
            found[what] = line, len(before.rpartition("\n")[2]) + 1, len(within), lines[line - 1]
        found["table", ()] = 1, 1, max(1, len(lines[0])), lines[0]
        return found
