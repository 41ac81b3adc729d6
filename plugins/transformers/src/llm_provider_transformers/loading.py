"""From a model's name to model and tokenizer in memory: folders, GGUF files and ids of the hub. All of it blocks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any, Final

from providers.exceptions import LLMProviderConfigurationError, LLMProviderError
from providers.notices import shown
from providers.profiles import ModelProfile

from .errors import error_of_loading, missing, out_of_memory
from .settings import NAME, Loading, TransformersSettings, sort_loading

_GIB: Final = 2**30
_WEIGHTS: Final = (".safetensors", ".bin", ".gguf")
_ANSWERING: Final = ("CausalLM", "LMHead", "ConditionalGeneration")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from.

    Attributes:
        place: a folder, or an id of the hub.
        gguf_file: the name of a GGUF file in it, or `None`.
        local: whether it is a folder.
        label: the name that answers bear.
    """

    place: str
    gguf_file: str | None
    local: bool
    label: str


def find_source(name: str | None, settings: TransformersSettings, profile: ModelProfile) -> Source:
    """Where the model of a name is.

    Raises:
        LLMProviderConfigurationError: a path leads nowhere, or to a folder without a model.
    """
    given = settings.model_path
    origin = f"model_path ({settings.source('model_path')})"
    if given is None and isinstance(profile.data.get("path"), str):
        given, origin = str(profile.data["path"]), f"the path of [models.{name!r}]"
    if given is None:
        if not name:
            raise LLMProviderConfigurationError(
                "no model: pass model_name=... (a folder, a .gguf file, or an id of the Hugging Face hub), or set "
                "TRANSFORMERS_MODEL_PATH or DEFAULT_MODEL_NAME",
                provider=NAME,
            )
        given, origin = name, "the model's name"
        if not _exists(given) and not _looks_like_path(given):
            return Source(given, None, False, given)
    exists = _exists(given)
    path = Path(given).expanduser() if exists else Path()
    label = name or path.name
    if exists and path.is_file() and path.suffix == ".gguf":
        return Source(str(path.parent), path.name, True, label)
    if not exists or not path.is_dir():
        what = "is a file, but no GGUF file" if exists else "does not exist"
        # An address in the place of a path may hold a token.
        told = shown(given) if "://" in given else repr(given)
        raise LLMProviderConfigurationError(
            f"{origin} is {told}, which {what}; give a folder as models are published in, a .gguf file, or an id of "
            "the Hugging Face hub (owner/name)",
            provider=NAME,
        )
    if (path / "config.json").exists():
        return Source(str(path), None, True, label)
    files = sorted(found.name for found in path.glob("*.gguf"))
    if len(files) != 1:
        raise LLMProviderConfigurationError(
            f"{origin} is the folder {given!r}, which has no config.json and "
            f"{'several GGUF files: name one of ' + ', '.join(files) if files else 'no GGUF file: it holds no model'}",
            provider=NAME,
        )
    return Source(str(path), files[0], True, label)


def _exists(name: str) -> bool:
    try:
        return Path(name).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, a NUL in it, no such user
        return False


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~", "\\")) or name.endswith(".gguf") or name.count("/") > 1


@dataclass(slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        model: the model; one that answers, or one that only encodes.
        tokenizer: its tokenizer.
        answers: whether it can answer.
        generation: parameters of `generate` for every call.
        torch: the module.
        lock: held while the tokenizer is used.
    """

    model: Any
    tokenizer: Any
    answers: bool
    generation: dict[str, Any]
    torch: Any
    lock: Lock = field(default_factory=Lock)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """The tokens of a text; from any thread. The tokenizer itself can be used by one at a time.

        Args:
            text: the text; half a surrogate pair becomes U+FFFD.
            special: whether the tokenizer adds its own tokens.
        """
        with self.lock:
            # verbose: the warning that a text is longer than the model's context is an error of ours where it matters.
            found = self.tokenizer(_valid(text), add_special_tokens=special, return_attention_mask=False, verbose=False)
        return list(found["input_ids"])

    @property
    def device(self) -> Any:
        """Where inputs go: where the first layers are, also where their weights are kept elsewhere."""
        device = self.model.device
        if device.type == "meta":
            places = getattr(self.model, "hf_device_map", None) or {"": "cpu"}
            device = self.torch.device(next((place for place in places.values() if place != "disk"), "cpu"))
        return device


def _valid(text: str) -> str:
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def load(source: Source, settings: TransformersSettings) -> Loaded:
    """Load model and tokenizer; takes seconds to minutes.

    Raises:
        MissingDependencyError: torch, transformers, or a package that the model needs is not installed.
        LLMProviderConfigurationError: the model is not there, is not whole, or does not fit; says what to do.
    """
    torch, lib = _engine()
    loading = sort_loading(settings, generation_names(lib))
    extra = {"gguf_file": source.gguf_file} if source.gguf_file else {}
    with _quietly(lib):
        config = _step(source, "configuration", lambda: _config(lib, source, loading, extra))
        if getattr(config, "is_encoder_decoder", False):
            raise LLMProviderConfigurationError(
                f"{source.place} is an encoder-decoder model; this provider runs models that continue a text, and "
                "encoders for embeddings",
                provider=NAME,
            )
        tokenizer = _tokenizer(lib, source, loading, extra)
        answers = _answers(lib, config)
        _check_memory(source, loading)
        cls = lib.AutoModelForCausalLM if answers else lib.AutoModel
        model = _step(source, "model", lambda: cls.from_pretrained(source.place, **extra, **loading.model))
        model = _step(source, "model", lambda: _placed(torch, model, loading))
    model.eval()
    return Loaded(model, tokenizer, answers, loading.generation, torch)


def generation_names(lib: Any) -> frozenset[str]:
    """The names of the parameters of `generate`."""
    hidden = {"transformers_version", "generation_kwargs"}
    return frozenset(name for name in vars(lib.GenerationConfig()) if not name.startswith("_")) - hidden


def _engine() -> tuple[Any, Any]:
    try:
        torch = import_module("torch")
    except ImportError as error:
        raise missing("torch", error) from error
    try:
        return torch, import_module("transformers")
    except ImportError as error:
        raise missing("transformers", error) from error


def _step(source: Source, what: str, do: Any) -> Any:
    try:
        return do()
    except LLMProviderError:
        raise
    except Exception as error:
        raise error_of_loading(error, what, source.place, local=source.local) from error


def _config(lib: Any, source: Source, loading: Loading, extra: dict[str, Any]) -> Any:
    given = loading.model.get("config")
    return given if given is not None else lib.AutoConfig.from_pretrained(source.place, **extra, **loading.tokenizer)


def _tokenizer(lib: Any, source: Source, loading: Loading, extra: dict[str, Any]) -> Any:
    own = loading.own_tokenizer
    if own is not None and not isinstance(own, str | os.PathLike):
        return own
    if own is None:
        where, more = source, extra
    else:
        place = str(own)
        where, more = Source(place, None, Path(place).expanduser().is_dir(), place), {}
    found = _step(
        where,
        "tokenizer",
        lambda: lib.AutoTokenizer.from_pretrained(where.place, **more, **loading.tokenizer),
    )
    if found is False or not callable(found):
        raise LLMProviderConfigurationError(f"{where.place} has no tokenizer", provider=NAME)
    return found


def _answers(lib: Any, config: Any) -> bool:
    names = getattr(config, "architectures", None) or ()
    if names:
        return any(word in name for name in names for word in _ANSWERING)
    return type(config) in lib.MODEL_FOR_CAUSAL_LM_MAPPING


def _placed(torch: Any, model: Any, loading: Loading) -> Any:
    """The model on its device: as given, else on the accelerator where there is one, as `pipeline` does."""
    if loading.model.get("device_map") is not None:
        return model
    device = loading.device
    if isinstance(device, int) and not isinstance(device, bool):
        device = "cpu" if device < 0 else f"{_accelerator(torch) or 'cuda'}:{device}"
    if device is None:
        device = _accelerator(torch)
    if device is None or getattr(model, "hf_device_map", None) or getattr(model, "is_quantized", False):
        return model
    try:
        return model.to(device)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise LLMProviderConfigurationError(
            f"pipeline_kwargs: the model cannot be moved to the device {device!r}: {error}", provider=NAME
        ) from error


def _accelerator(torch: Any) -> str | None:
    return str(torch.accelerator.current_accelerator().type) if torch.accelerator.is_available() else None


@contextmanager
def _quietly(lib: Any) -> Iterator[None]:
    """Without progress bars: they are for people at a terminal, not for the stderr of a service."""
    logging = lib.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


# --- what fits ------------------------------------------------------------------------------------------------------


def _check_memory(source: Source, loading: Loading) -> None:
    """Refuse weights that are larger than the memory that is free: the system would end the process, not say no."""
    if not source.local or loading.model.get("device_map") is not None or loading.model.get("quantization_config"):
        return
    names = [source.gguf_file] if source.gguf_file else _weight_files(Path(source.place))
    size = sum((Path(source.place) / name).stat().st_size for name in names)
    free = free_memory()
    if free is not None and size > free:
        raise LLMProviderConfigurationError(
            f"{source.place} does not fit: its weights are {size / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB of memory "
            "are free; take a smaller or quantized model, or pipeline_kwargs={'device_map': 'auto'}, which spreads it "
            "over all devices and the disk",
            provider=NAME,
        )


def _weight_files(folder: Path) -> list[str]:
    found = [file for file in folder.iterdir() if file.suffix in _WEIGHTS and file.is_file()]
    kinds = [file.suffix for file in found]
    kind = next((suffix for suffix in _WEIGHTS if suffix in kinds), None)
    return [file.name for file in found if file.suffix == kind]


def free_memory() -> int | None:
    """Bytes of memory that this process can still get, or `None` where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (int(Path(name).read_text(encoding="utf-8")) for name in (limit, used))
        except (OSError, ValueError):
            continue
        # Memory in use counts the file cache, which is given back when needed; so only the limit itself is certain.
        free = min(free, max(most - now, most // 2)) if most < 2**60 else free
    return free
