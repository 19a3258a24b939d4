"""Backends by name: a config dataclass and what is built of it, imported when the name is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from hybriddepth_ros.errors import CameraError
from hybriddepth_ros.parameters import from_mapping, nearest_name

Backend = TypeVar("Backend")


class Registry(Generic[Backend]):
    """kind: what messages call a backend. modules: name -> module whose import registers it.

    Importing this imports no vendor's SDK.
    """

    def __init__(self, kind: str, modules: Mapping[str, str]) -> None:
        self._kind, self._modules = kind, dict(modules)
        self.entries: dict[str, tuple[type, Callable[..., Backend]]] = {}

    def register(self, name: str, config: type) -> Callable[[type[Backend]], type[Backend]]:
        """Class decorator: makes a backend known as `name`; it is built from one instance of `config`."""

        def register(backend: type[Backend]) -> type[Backend]:
            self.entries[name] = (config, backend)
            return backend

        return register

    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self._modules, *self.entries}))

    def config_type(self, name: str) -> type:
        """CameraError for an unknown name."""
        return self._find(name)[0]

    def make(self, name: str, config: Mapping[str, Any] | object, **more: Any) -> Backend:
        """From its config: its dataclass, or a mapping to be checked; `more` is passed on."""
        config_type, backend = self._find(name)
        if isinstance(config, Mapping):
            config = from_mapping(config_type, config, where=f"{self._kind} {name}")
        return backend(config, **more)

    def _find(self, name: str) -> tuple[type, Callable[..., Backend]]:
        if name not in self.entries and name in self._modules:
            importlib.import_module(self._modules[name])
        if name not in self.entries:
            known = self.names()
            expected = f"expected one of {', '.join(known)}{nearest_name(name, known)}"
            raise CameraError(f"{self._kind}: unknown {self._kind} {name!r}, {expected}")
        return self.entries[name]
