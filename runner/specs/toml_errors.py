"""TOML's grammar for those who have not read it: what is broken in words, and values as they are written."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

STRING = r"""
    \"{3} (?: [^"\\]++ | \\[\s\S] | "(?!"") )*+ (?: "{3,5} )?   # always matches: a string left open runs to the end of
  | '{3} (?: [^']++ | '(?!'') )*+ (?: '{3,5} )?                 # its line or of the file, for tomli to refuse
  | " (?: [^"\\\n]++ | \\[^\n] )*+ "?
  | ' [^'\n]*+ '?
"""
"""A string, in verbose form."""

_BRACKET = re.compile(rf"{STRING} | \#[^\n]*+ | (?P<bracket> [\[\]{{}}] )", re.X)

_WORD = re.compile(r"[^\s,\]}\"'#=]+")

_BACKSLASH = ("in \"…\" a backslash begins an escape",
              "write the backslash twice, or / between folders, or put the text in 'single quotes'")

_OPEN_QUOTES = ("Illegal character '\\n'", "Unterminated string", "Expected \"'")

_SAID = {
    "Cannot overwrite a value": ("this key is set already", "a key is set once: in this table, and in one form"),
    "Expected '=' after a key": ("an `=` is missing behind this key", "a line is `key = value`, a header is `[table]`"),
    "Expected newline or end": ("something stands behind the value", "one `key = value` a line"),
    "Unclosed array": ("this list is not closed", "its items are separated by commas and end in `]`"),
    "Unclosed inline table": ("this table is not closed", "its keys are separated by commas and end in `}`"),
    "Unescaped": _BACKSLASH,
    "Invalid hex": _BACKSLASH,
}


class Broken(NamedTuple):
    """What is wrong with a text from `start` to `end`, and what to do."""

    message: str
    start: int
    end: int
    hint: str


def broken(text: str, said: str, at: int) -> Broken:
    """Return what a person should read of what tomli said of the character `at`."""
    line = text.rfind("\n", 0, at) + 1
    if at >= len(text.rstrip()) and (opened := _unclosed(text)) is not None:
        closing = "]" if text[opened] == "[" else "}"
        return Broken(f"this `{text[opened]}` is not closed", opened, opened + 1, f"add the `{closing}` that ends it")
    if said == "Invalid value":
        return _no_value(text, at)
    if said.startswith(("Cannot declare", "Cannot redefine", "Cannot mutate", "Duplicate")):
        header = text[line : text.find("\n", at) if "\n" in text[at:] else None].split("#")[0].strip()
        return Broken(f"`{header:.60}` stands here a second time" if header.startswith("[") else "this is set already",
                      line, at, "put all of a table's keys under one header")
    if said.startswith(_OPEN_QUOTES):
        start = next((found.start() for found in _BRACKET.finditer(text) if _is_open(found[0])), at)
        return Broken("these quotes are not closed", start, at,
                      'close them on this line, or put the text between """ and """')
    message, hint = next((ours for theirs, ours in _SAID.items() if said.startswith(theirs)), (f"{said:.200}", ""))
    return Broken(message, line if message.startswith("this key") else at, max(at, line + 1), hint)


def written(value: Any) -> str:
    """Return a value as TOML writes it; what does not print is escaped."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{written_key(key)} = {written(item)}' for key, item in value.items())} }}"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in text)
    return str(value).lower() if isinstance(value, bool) else str(value)


def written_key(key: str) -> str:
    """Return a key as TOML writes it."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else written(key)


def _no_value(text: str, at: int) -> Broken:
    """Return what is wrong where a value should stand."""
    found = _WORD.match(text, at)
    word = found[0] if found else ""
    if word.lower() in ("true", "false"):
        return Broken(f"`{word}` is no value", at, at + len(word), f"write it in small letters: {word.lower()}")
    if word.lower() in ("none", "null", "nil"):
        return Broken(f"`{word}` is no value", at, at + len(word), "to leave a key unset, leave out its line")
    if re.match(r"[A-Za-z_./~]", word):
        return Broken(f"`{word:.60}` has no quotes", at, at + len(word), f'text stands in quotes: "{word:.60}"')
    if re.match(r"[0-9.+-]", word):
        return Broken(f"`{word:.60}` is no number", at, at + len(word), "numbers look like 1, 0.5, -2 or 1e-5")
    return Broken("a value is missing", at, at + 1, 'values look like "text", 1, 0.5, true, [1, 2] or {a = 1}')


def _is_open(text: str) -> bool:
    """Tell whether a string lacks its closing quotes."""
    quotes = text[:3] if text[:3] in ('"""', "'''") else text[:1]
    if quotes == '"':
        return not re.fullmatch(r'"(?:[^"\\]|\\.)*"', text)
    return text[:1] in "\"'" and (len(text) < 2 * len(quotes) or not text.endswith(quotes))


def _unclosed(text: str) -> int | None:
    """Return where the innermost bracket stands that is still open at the end of a text."""
    opened: list[int] = []
    for found in _BRACKET.finditer(text):
        if found["bracket"] in ("[", "{"):
            opened.append(found.start())
        elif found["bracket"] and opened:
            opened.pop()
    return opened[-1] if opened else None
