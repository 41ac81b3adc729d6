"""The files that settings come from: `.env` and `providers.toml`, read when they changed and never imported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from .exceptions import LLMProviderConfigurationError
from .notices import shown, shown_name, warn

ENV_FILE: Final = "LLM_PROVIDERS_ENV_FILE"
NO_DOTENV: Final = "LLM_PROVIDERS_NO_DOTENV"
CONFIG_FILE: Final = "LLM_PROVIDERS_CONFIG"
_TOML_FILES: Final = ("config/providers.toml", "providers.toml")
_MOST_BYTES: Final = 1_000_000
_YES: Final = {"1", "true", "yes", "on", "t", "y"}
_NO: Final = {"", "0", "false", "no", "off", "f", "n"}
_TABLES: Final = {"settings", "providers", "presets"}
_SETTINGS: Final = {"default_llm_provider", "default_model_name", "layers"}


class ConfigurationWarning(UserWarning):
    """A source of settings holds something that cannot be read or contradicts itself; the rest of it is used."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value and where it was found.

    Attributes:
        value: the value.
        source: where it came from, in words for messages.
        name: the variable's name, where it is one.
        clash: another variable that is set to another value, or `""`.
    """

    value: Any
    source: str
    name: str = ""
    clash: str = ""

    def with_clash(self, clash: str) -> Found:
        """The same find with the name of a variable that disagrees."""
        return replace(self, clash=clash)


class DotEnv(dict[str, Found]):
    """The variables of a `.env` file; `searched` says in words which file was looked for."""

    searched: str = ".env"


class Toml:
    """The tables of a `providers.toml`; `searched` says in words which files were looked for."""

    def __init__(self, data: Mapping[str, Any], path: str, searched: str, text: str = "") -> None:
        self.data = data
        self.path = path
        self.searched = searched
        self._text = text
        self._tables: dict[tuple[str, str], dict[str, Found]] = {}

    def table(self, kind: str, name: str) -> Mapping[str, Found]:
        """The values of `[kind.name]`.

        Raises:
            LLMProviderConfigurationError: it is no table.
        """
        found = self._tables.get((kind, name))
        if found is None:
            group = self.data.get(kind, {})
            table = group.get(name, {}) if isinstance(group, Mapping) else group
            if not isinstance(table, Mapping):
                raise LLMProviderConfigurationError(f"{self.place(kind, name)} must be a table")
            found = {key: Found(value, self.place(kind, name, key=key)) for key, value in table.items()}
            self._tables[kind, name] = found
        return found

    def names(self, kind: str) -> list[str]:
        """The names of the tables of a kind."""
        group = self.data.get(kind, {})
        return sorted(group) if isinstance(group, Mapping) else []

    def place(self, *table: str, key: str | None = None) -> str:
        """A table, or a key in it, with its line, in words for messages."""
        line = self._lines.get(table if key is None else (*table, key))
        return f"[{'.'.join(map(shown_name, table))}] of {self.path}{_in_line(line)}"

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        return dict(_lines_of(self._text)) if self._text else {}

    def unknown(self) -> Iterator[str]:
        """A sentence for each table, and for each key of `[settings]`, that nothing reads."""
        settings = self.data.get("settings")
        for above, table, known in ((), self.data, _TABLES), (("settings",), settings, _SETTINGS):
            if isinstance(table, Mapping):
                for name in sorted(table.keys() - known):
                    yield self._unknown((*above, name), table[name], known)

    def _unknown(self, path: tuple[str, ...], value: Any, known: set[str]) -> str:
        from difflib import get_close_matches

        is_table = isinstance(value, Mapping) or (isinstance(value, list) and value and isinstance(value[0], Mapping))
        names = [shown_name(name) for name in path]
        what = f"[{'.'.join(names)}]" if is_table else " in ".join((names[-1], *(f"[{name}]" for name in names[:-1])))
        near = get_close_matches(path[-1], sorted(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the names there are {', '.join(sorted(known))}"
        return f"{what} of {self.path}{_in_line(self._lines.get(path))}: nothing reads {shown(path[-1])}; {hint}"


def _in_line(line: int | None) -> str:
    return "" if line is None else f", line {line}"


# What may hold brackets and line ends that are none, and those that are.
_PIECES: Final = re.compile(
    r'''#[^\n]*|"""(?:\\.|[^\\])*?"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|[][{}\n]''', re.DOTALL
)
_KEY: Final = re.compile(r"""((?:"(?:\\.|[^"\\])*"|'[^']*'|[\w-]++|[ \t]*\.[ \t]*)+)[ \t]*=""")


def _lines_of(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """The path of each table and each key of a valid toml text, and its line; those that come again, the first last."""
    found: list[tuple[tuple[str, ...], int]] = []
    table: tuple[str, ...] = ()
    for line, statement in _statements(text):
        if statement.startswith("["):
            path, depth = _path(statement), 0
            table = path
        elif match := _KEY.match(statement):
            path, depth = (*table, *_path(f"{match[1]} = 0")), len(table)
        else:
            continue
        found += ((path[:end], line) for end in range(depth + 1, len(path) + 1))
    return reversed(found)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Statements with the line that each begins in; one may run over several lines."""
    start = depth = 0
    line = begun = 1
    for piece in _PIECES.finditer(text + "\n"):
        what = piece[0]
        depth += (what in "[{") - (what in "]}")
        line += what.count("\n")
        if what == "\n" and not depth:
            if statement := text[start : piece.start()].strip():
                yield begun, statement
            start, begun = piece.end(), line


def _path(statement: str) -> tuple[str, ...]:
    """The names of a table's head, or of a key, outermost first."""
    import tomllib

    path: list[str] = []
    at: Any = tomllib.loads(statement)
    while at:
        if isinstance(at, list):
            at = at[0]
        else:
            [(name, at)] = at.items()
            path.append(name)
    return tuple(path)


_dotenv: tuple[Any, DotEnv] = (None, DotEnv())
_toml: tuple[Any, Toml] = (None, Toml({}, "", ""))


def read_dotenv() -> DotEnv:
    """The variables of `.env` in the working directory, or of the file that `LLM_PROVIDERS_ENV_FILE` names.

    Parent folders are not searched: a file that lies above a project by chance must not hand its keys to it. Lines
    that cannot be read are told in one warning and passed over. `LLM_PROVIDERS_NO_DOTENV=1` turns the file off.

    Raises:
        LLMProviderConfigurationError: the named file does not exist, or `LLM_PROVIDERS_NO_DOTENV` is no boolean.
    """
    global _dotenv
    if _is_on(NO_DOTENV):
        return _no_dotenv(f".env (turned off by {NO_DOTENV})")
    named = os.environ.get(ENV_FILE)
    path = _here(named or ".env")
    if path is None:
        return _no_dotenv(".env (there is no working directory)")
    stamp = _stamp(path)
    if _dotenv[0] != (path, stamp):
        found = _load_dotenv(path) if stamp else DotEnv()
        found.searched = path
        if named and not stamp:
            raise LLMProviderConfigurationError(f"{ENV_FILE} names {path}, which does not exist")
        _dotenv = ((path, stamp), found)
    return _dotenv[1]


def last_dotenv() -> DotEnv:
    """What `read_dotenv` gave last, without another look at the file."""
    return _dotenv[1]


def _is_on(variable: str) -> bool:
    """Whether a variable says yes, in any of the words that settings know; unset and blank are no."""
    word = os.environ.get(variable, "").strip().lower()
    if word in _YES:
        return True
    if word in _NO:
        return False
    raise LLMProviderConfigurationError(f"environment variable {variable} must be true or false, not {shown(word)}")


def _no_dotenv(searched: str) -> DotEnv:
    found = DotEnv()
    found.searched = searched
    return found


def _here(name: str) -> str | None:
    try:
        return os.path.abspath(name)
    except OSError:
        return None


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _load_dotenv(path: str) -> DotEnv:
    try:
        if os.path.getsize(path) > _MOST_BYTES:
            raise OSError(f"it is larger than {_MOST_BYTES:,} bytes")
        raw = Path(path).read_bytes()
    except OSError as error:
        warn(f"{path} cannot be read and is passed over: {error}", ConfigurationWarning)
        return DotEnv()
    from io import StringIO

    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    text = raw.decode("utf-8-sig", errors="replace")
    good, bad = [], []
    for binding in parse_stream(StringIO(text)):
        raw_line = binding.original.string
        # A binding begins with the blank lines before it.
        line = binding.original.line + raw_line[: len(raw_line) - len(raw_line.lstrip())].count("\n")
        if binding.error or (binding.key is not None and "�" in raw_line):
            bad.append(line)
        elif binding.key is not None:
            good.append((binding.key, line, raw_line))
            if binding.value is None:
                bad.append(line)
    if bad:
        places = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        warn(f"{path}: line {places} cannot be read as NAME=value and is passed over", ConfigurationWarning)
    values = dotenv_values(stream=StringIO("".join(original for _, _, original in good)))
    lines = {key: line for key, line, _ in good}
    found = DotEnv()
    for key, value in values.items():
        if value is not None:
            found[key] = Found(value, f"{key} in {path}, line {lines[key]}", key)
    return found


def read_toml() -> Toml:
    """The tables of `config/providers.toml`, or, where that is absent, of `providers.toml` in the working directory; or
    of the file that `LLM_PROVIDERS_CONFIG` names.

    Raises:
        LLMProviderConfigurationError: the file is no toml (names file and line), or the named file does not exist.
    """
    global _toml
    named = os.environ.get(CONFIG_FILE)
    paths = [_here(name) for name in ([named] if named else _TOML_FILES)]
    state = tuple((path, _stamp(path) if path else None) for path in paths)
    if _toml[0] == state:
        return _toml[1]
    path = next((path for path, stamp in state if stamp), None)
    searched = path or " and ".join(path for path in paths if path) or "providers.toml"
    for other, stamp in state:
        if path is not None and stamp and other != path:
            searched += f" ({other} is not read beside it)"
    if named and path is None:
        raise LLMProviderConfigurationError(f"{CONFIG_FILE} names {paths[0]}, which does not exist")
    toml = _load_toml(path, searched) if path else Toml({}, "", searched)
    for sentence in toml.unknown():
        warn(f"{sentence}; it is passed over", ConfigurationWarning)
    _toml = (state, toml)
    return toml


def _load_toml(path: str, searched: str) -> Toml:
    import tomllib

    try:
        # Some editors put a mark before the text that the toml standard does not know.
        text = Path(path).read_bytes().decode("utf-8-sig")
        return Toml(tomllib.loads(text), path, searched, text)
    except tomllib.TOMLDecodeError as error:
        raise LLMProviderConfigurationError(f"{path} is no valid toml: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LLMProviderConfigurationError(f"{path} cannot be read: {error}") from None


def last_toml() -> Toml:
    """What `read_toml` gave last, without another look at the files."""
    return _toml[1]


def house_variable(name: str) -> Found | None:
    """A top-level value of the toml file's `[settings]` table."""
    toml = read_toml()
    data = toml.data.get("settings", {})
    value = data.get(name) if isinstance(data, Mapping) else None
    return None if value is None else Found(value, toml.place("settings", key=name))


def files_stamp() -> tuple[Any, ...]:
    """Something that is equal while `.env` and the toml file are the same files, unchanged."""
    dotenv = _here(os.environ.get(ENV_FILE) or ".env")
    named = os.environ.get(CONFIG_FILE)
    paths = [dotenv, *map(_here, [named] if named else _TOML_FILES)]
    return tuple((path, _stamp(path) if path else None) for path in paths)


def forget_files() -> None:
    """Read `.env` and the toml file anew at their next use."""
    global _dotenv, _toml
    _dotenv = (None, DotEnv())
    _toml = (None, Toml({}, "", ""))
