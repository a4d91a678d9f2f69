"""Explain syntax errors of TOML in plain words, and format values as TOML."""

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
"""Pattern of a TOML string, for re.VERBOSE."""

_BRACKET = re.compile(rf"{STRING} | \#[^\n]*+ | (?P<bracket> [\[\]{{}}] )", re.X)

_WORD = re.compile(r"[^\s,\]}\"'#=]+")

_BACKSLASH = ("in \"…\" a backslash begins an escape",
              "write the backslash twice, or / between folders, or put the text in 'single quotes'")

_OPEN_QUOTES = ("Illegal character '\\n'", "Unterminated string", "Expected \"'")

_MESSAGES = {
    "Cannot overwrite a value": ("this key is set already", "a key is set once: in this table, and in one form"),
    "Expected '=' after a key": ("an `=` is missing behind this key", "a line is `key = value`, a header is `[table]`"),
    "Expected newline or end": ("something stands behind the value", "one `key = value` a line"),
    "Unclosed array": ("this list is not closed", "its items are separated by commas and end in `]`"),
    "Unclosed inline table": ("this table is not closed", "its keys are separated by commas and end in `}`"),
    "Unescaped": _BACKSLASH,
    "Invalid hex": _BACKSLASH,
}


class Broken(NamedTuple):
    """Syntax error in text[start:end], with a hint."""

    message: str
    start: int
    end: int
    hint: str


def broken(text: str, error: str, at: int) -> Broken:
    """Convert tomli's `error` at offset `at` to a plain message with a hint."""
    line = text.rfind("\n", 0, at) + 1
    if at >= len(text.rstrip()) and (opened := _unclosed(text)) is not None:
        closing = "]" if text[opened] == "[" else "}"
        return Broken(f"this `{text[opened]}` is not closed", opened, opened + 1, f"add the `{closing}` that ends it")
    if error == "Invalid value":
        return _no_value(text, at)
    if error.startswith(("Cannot declare", "Cannot redefine", "Cannot mutate", "Duplicate")):
        header = text[line : text.find("\n", at) if "\n" in text[at:] else None].split("#")[0].strip()
        return Broken(f"`{header:.60}` stands here a second time" if header.startswith("[") else "this is set already",
                      line, at, "put all of a table's keys under one header")
    if error.startswith(_OPEN_QUOTES):
        start = next((match.start() for match in _BRACKET.finditer(text) if _is_open(match[0])), at)
        return Broken("these quotes are not closed", start, at,
                      'close them on this line, or put the text between """ and """')
    matches = (ours for theirs, ours in _MESSAGES.items() if error.startswith(theirs))
    message, hint = next(matches, (f"{error:.200}", ""))
    return Broken(message, line if message.startswith("this key") else at, max(at, line + 1), hint)


def written(value: Any) -> str:
    """Format a value as TOML; unprintable characters are escaped."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{written_key(key)} = {written(item)}' for key, item in value.items())} }}"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return "".join(c if c.isprintable() else f"\\U{ord(c):08X}" for c in text)
    return str(value).lower() if isinstance(value, bool) else str(value)


def written_key(key: str) -> str:
    """Format a key as TOML, quoted where needed."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else written(key)


def _no_value(text: str, at: int) -> Broken:
    """Return the error of an invalid or missing value."""
    match = _WORD.match(text, at)
    word = match[0] if match else ""
    if word.lower() in ("true", "false"):
        return Broken(f"`{word}` is no value", at, at + len(word), f"write it in small letters: {word.lower()}")
    if word.lower() in ("none", "null", "nil"):
        return Broken(f"`{word}` is no value", at, at + len(word), "to leave a key unset, leave out its line")
    if re.match(r"[A-Za-z_./~]", word):
        return Broken(f"`{word:.60}` has no quotes", at, at + len(word), f'text stands in quotes: "{word:.60}"')
    if re.match(r"[0-9.+-]", word):
        return Broken(f"`{word:.60}` is no number", at, at + len(word), "numbers look like 1, 0.5, -2 or 1e-5")
    return Broken("a value is missing", at, at + 1, 'values look like "text", 1, 0.5, true, [1, 2] or {a = 1}')


def _is_open(string: str) -> bool:
    """Tell whether a string lacks its closing quotes."""
    quotes = string[:3] if string[:3] in ('"""', "'''") else string[:1]
    if quotes == '"':
        return not re.fullmatch(r'"(?:[^"\\]|\\.)*"', string)
    return string[:1] in "\"'" and (len(string) < 2 * len(quotes) or not string.endswith(quotes))


def _unclosed(text: str) -> int | None:
    """Return the offset of the innermost bracket that is still open at the end of a text."""
    opened: list[int] = []
    for match in _BRACKET.finditer(text):
        if match["bracket"] in ("[", "{"):
            opened.append(match.start())
        elif match["bracket"] and opened:
            opened.pop()
    return opened[-1] if opened else None
