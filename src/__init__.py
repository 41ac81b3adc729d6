"""Lets a checkout be used as the founding document writes it: `from src.providers import create_llm_provider`.

`src.providers` is the package `providers` itself, with all its modules, so that classes are the same objects under both
names and `except` and `isinstance` agree. Not part of the distribution.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_ALIAS = f"{__name__}.providers"


class _SameModule(MetaPathFinder, Loader):
    """Finds `src.providers.X` as `providers.X`; and `src.providers.NAME_provider` as the plugin that brings NAME."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _ALIAS and not fullname.startswith(f"{_ALIAS}."):
            return None
        return ModuleSpec(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = _real_module(spec.name[len(__name__) + 1 :])
        _specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The module ran already, under its real name. The import system has just put the alias's spec on it: undo that,
        # or reloading and pickling would look for it under the alias.
        spec = module.__spec__
        if spec is not None:
            module.__spec__ = _specs.get(spec.name, spec)


def _real_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name or not name.endswith("_provider"):
            raise
    registry = importlib.import_module("providers.registry")
    try:
        cls = registry.provider_class(name.removeprefix("providers.").removesuffix("_provider"))
    except importlib.import_module("providers.exceptions").LLMProviderError as error:
        raise ModuleNotFoundError(f"no module named '{__name__}.{name}': {error}", name=f"{__name__}.{name}") from error
    return importlib.import_module(cls.__module__.partition(".")[0])


_specs: dict[str, ModuleSpec | None] = {}

if importlib.util.find_spec("providers") is None:
    sys.path.append(str(Path(__file__).resolve().parent))
sys.meta_path.insert(0, _SameModule())
