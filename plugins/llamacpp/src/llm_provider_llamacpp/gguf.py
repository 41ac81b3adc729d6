"""Model files: which one a name means, what its head says, and what is wrong with one that does not load."""

from __future__ import annotations

import importlib.util
import os
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from providers.exceptions import LLMProviderConfigurationError, MissingDependencyError
from providers.notices import shown
from providers.profiles import ModelProfile

from .settings import NAME, LlamaCppSettings

# Source: docs/gguf.md of ggml. Sizes in bytes of the plain types of values; 8 is a text, 9 a list.
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_INTEGERS: Final = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 10: "<Q", 11: "<q"}
_TEXT: Final = 8
_LIST: Final = 9
_VERSIONS: Final = (2, 3)
_POOLINGS: Final = {1: "mean", 2: "cls", 3: "last"}
_ALIGNMENT: Final = 32
_MOST_TENSORS: Final = 2**24


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file and what its head says.

    Attributes:
        path: where it is.
        label: the name that answers bear.
        context_length: tokens that the model was made for, or `None` where the file does not say.
        pooling: how an embedding model's vectors are pooled, or `None` for other models.
    """

    path: str
    label: str
    context_length: int | None = None
    pooling: str | None = None


def find_model(name: str | None, settings: LlamaCppSettings, profile: ModelProfile) -> ModelFile:
    """The file that a model's name and the settings mean, with its head read and checked.

    `model_path` as an argument or in a preset comes first, then a name that is a path itself, then the `model_path` of
    other sources, then what is known of the name: `path`, or `file` in the package `package`.

    Raises:
        LLMProviderConfigurationError: there is no such file, or it is no whole model file.
        MissingDependencyError: the package that holds the file is not installed; says what to run.
    """
    by_argument = settings.model_path is not None and settings.was_given("model_path")
    if name is not None and not by_argument and (name.lower().endswith(".gguf") or os.sep in name):
        return read_head(os.path.expanduser(name), _stem(name), "model_name")
    if settings.model_path is not None:
        # A name that stands for another file would be a lie on the answers of this one.
        other = name is None or "package" in profile.data
        label = _stem(settings.model_path) if other else str(name)
        return read_head(os.path.expanduser(settings.model_path), label, _origin(settings))
    if "path" in profile.data:
        return read_head(os.path.expanduser(str(profile.data["path"])), str(name), f"the path of model {name!r}")
    if "package" in profile.data:
        return read_head(_packaged(profile), str(name), f"the file of package {profile.data['package']}")
    raise LLMProviderConfigurationError(
        f"no model file is known for {name!r}: pass model_path=..., set LLAMACPP_MODEL_PATH, or give the path of a "
        "GGUF file as the model's name",
        provider=NAME,
    )


def _told(path: str) -> str:
    # An address in the place of a path may hold a token.
    return shown(path) if "://" in path else path


def _origin(settings: LlamaCppSettings) -> str:
    return f"model_path ({settings.sources.get('model_path', 'default')})"


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0] or path


def _packaged(profile: ModelProfile) -> str:
    package, file = str(profile.data["package"]), str(profile.data["file"])
    # Looked for and not imported: importing such a package may need more than is installed.
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError(
            f"the model {profile.model_name} comes in the package {package}, which is not installed; run: "
            f"{profile.data['install']} ({profile.data['install_note']}). Or name a GGUF file of your own: "
            "model_path=..., or LLAMACPP_MODEL_PATH",
            provider=NAME,
            model=profile.model_name,
        )
    return os.path.join(next(iter(spec.submodule_search_locations)), file)


def read_head(path: str, label: str, origin: str) -> ModelFile:
    """Read the head of a model file, up to its vocabulary.

    Args:
        path: the file.
        label: the name that answers shall bear.
        origin: where the path comes from, for messages.

    Raises:
        LLMProviderConfigurationError: it is missing, a folder, unreadable, no GGUF file, or of a kind that llama.cpp
            does not read.
    """
    try:
        with open(path, "rb") as file:
            _check_start(file, path, origin)
            facts = _read_facts(file)
    except FileNotFoundError:
        raise _bad(f"{origin} names {_told(path)}, which does not exist") from None
    except IsADirectoryError:
        raise _bad(f"{origin} names {_told(path)}, which is a folder; name the .gguf file in it") from None
    except OSError as error:
        raise _bad(f"{origin} names {_told(path)}, which cannot be read: {error.strerror or error}") from None
    except (EOFError, struct.error, OverflowError, UnicodeDecodeError):
        raise _bad(f"{_told(path)} is cut short or damaged: its head does not make sense; fetch it again") from None
    family = facts.get("general.architecture")
    return ModelFile(
        path,
        label,
        facts.get(f"{family}.context_length"),
        _POOLINGS.get(facts.get(f"{family}.pooling_type", 0)),
    )


def explain(path: str) -> str:
    """Why llama.cpp may have refused a file whose start is good, in a sentence."""
    try:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            needed = _least_size(file)
    except (EOFError, struct.error, OverflowError, UnicodeDecodeError, OSError):
        return "it is cut short or damaged: its head does not make sense; fetch it again"
    if size < needed:
        return f"it is cut short: it has {size:,} bytes, and its table tells of {needed:,} or more; fetch it again"
    return (
        "it is damaged or cut short, its kind of model is unknown to this version of xllamacpp, or memory is short "
        "(lower n_ctx or n_parallel); verbosity=3 lets llama.cpp say more on stderr"
    )


def _bad(text: str) -> LLMProviderConfigurationError:
    return LLMProviderConfigurationError(text, provider=NAME)


def _check_start(file: BinaryIO, path: str, origin: str) -> None:
    start = file.read(24)
    if len(start) < 4 or start[:4] != b"GGUF":
        what = "is empty" if not start else f"is no GGUF file (it begins with {start[:4]!r}, not b'GGUF')"
        raise _bad(f"{origin} names {_told(path)}, which {what}")
    if len(start) < 24:
        raise _bad(f"{_told(path)} is cut short after {len(start)} bytes; fetch it again")
    version, tensors, values = struct.unpack("<IQQ", start[4:])
    if version not in _VERSIONS:
        swapped = int.from_bytes(start[4:8], "big") in _VERSIONS
        what = "is written for big-endian machines" if swapped else f"has version {version} of the GGUF format"
        raise _bad(f"{path} {what}; only little-endian files of version 2 and 3 are read: convert it anew")
    if not tensors:
        raise _bad(f"{path} holds no tensors: it is a vocabulary or a list of parts, not a model")
    if tensors > _MOST_TENSORS or values > _MOST_TENSORS:
        raise _bad(f"{path} is damaged: its head counts {tensors:,} tensors and {values:,} values; fetch it again")


def _read_facts(file: BinaryIO) -> dict[str, Any]:
    """Short values by name, up to the vocabulary, which is long and holds nothing that is wanted here."""
    file.seek(16)
    [count] = struct.unpack("<Q", _take(file, 8))
    facts: dict[str, Any] = {}
    for _ in range(count):
        name = _text(file).decode("utf-8")
        if name.startswith("tokenizer."):
            break
        facts[name] = _value(file)
    return facts


def _least_size(file: BinaryIO) -> int:
    """The least size in bytes that a file with this table of tensors can have."""
    file.seek(8)
    tensors, values = struct.unpack("<QQ", _take(file, 16))
    alignment = _ALIGNMENT
    for _ in range(values):
        name = _text(file).decode("utf-8")
        value = _value(file)
        if name == "general.alignment" and isinstance(value, int) and value > 0:
            alignment = value
    last = 0
    for _ in range(tensors):
        _text(file)
        [dimensions] = struct.unpack("<I", _take(file, 4))
        _take(file, 8 * dimensions + 4)
        last = max(last, *struct.unpack("<Q", _take(file, 8)))
    data = -(-file.tell() // alignment) * alignment
    return data + last + 1


def _value(file: BinaryIO) -> Any:
    [kind] = struct.unpack("<I", _take(file, 4))
    if kind == _TEXT:
        return _text(file).decode("utf-8", "replace")
    if kind == _LIST:
        inner, count = struct.unpack("<IQ", _take(file, 12))
        if inner == _TEXT:
            for _ in range(count):
                _text(file)
        elif inner in _SIZES:
            _take(file, _SIZES[inner] * count)
        else:
            raise EOFError
        return None
    if kind not in _SIZES:
        raise EOFError
    data = _take(file, _SIZES[kind])
    return struct.unpack(_INTEGERS[kind], data)[0] if kind in _INTEGERS else None


def _text(file: BinaryIO) -> bytes:
    [length] = struct.unpack("<Q", _take(file, 8))
    return _take(file, length)


def _take(file: BinaryIO, count: int) -> bytes:
    # Checked before reading, so that a length of garbage does not ask for all memory.
    if count > 2**30:
        raise EOFError
    data = file.read(count)
    if len(data) != count:
        raise EOFError
    return data
