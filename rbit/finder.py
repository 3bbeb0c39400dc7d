"""What job code imports of PyBit: ``pybit.models``, made of rbit's own classes, and jsonpickle, which is limited.

Used in the workers only.
"""

from __future__ import annotations

import sys
import threading
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from rbit import models

JSONPICKLE = "jsonpickle"


class Finder:  # importlib.abc has base classes for these two, but loads a lot that a worker can do without
    """Finds ``pybit.models``, and a package ``pybit`` around it; last, where no other finder does."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of one of the two modules; None for every other name."""
        loader: Any = self
        spec = ModuleSpec(fullname, loader, origin=__name__, is_package=fullname == "pybit")
        return spec if fullname in {"pybit", models.MODULE} else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Has the import system make the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the classes into ``pybit.models``; the package around it stays empty."""
        if module.__name__ == models.MODULE:
            vars(module).update((cls.__name__, cls) for cls in models.MODELS.values())


class Jsonpickle:
    """Finds jsonpickle, before any other finder, and limits it when it is loaded, which many jobs do not need.

    It is found where it is now, and so is what it imports itself, whatever folder the path gets for job code.
    """

    def __init__(self) -> None:
        self._path = list(sys.path)
        self._loads: int | None = None  # the thread that does
        self._spec = next(filter(None, (finder.find_spec(JSONPICKLE, None) for finder in sys.meta_path)), None)
        self._loader: Any = self._spec and self._spec.loader
        if self._spec is not None:
            self._spec.loader = self  # type: ignore[assignment]

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of jsonpickle, or of what it imports; None for every other name."""
        if fullname == JSONPICKLE:
            return self._spec
        if path is not None or self._loads != threading.get_ident():
            return None
        spec = BuiltinImporter.find_spec(fullname) or FrozenImporter.find_spec(fullname)
        if spec := spec or PathFinder.find_spec(fullname, self._path):
            return spec
        raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

    def create_module(self, spec: ModuleSpec) -> Any:
        """As the loader that it has."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Loads it."""
        self._loads = threading.get_ident()
        try:
            self._loader.exec_module(module)
        finally:
            self._loads = None
        limit(module)


def limit(jsonpickle: Any) -> None:
    """Has jsonpickle keep the standard library's parser only.

    It would try a body that this one refuses with others, YAML too, and nobody checked that.
    """
    jsonpickle.set_preferred_backend("json")
    jsonpickle.backend.json.enable_fallthrough(False)
    for name in ("simplejson", "ujson", "yaml"):
        jsonpickle.remove_backend(name)


def provide_pybit_models() -> None:
    """Make ``jsonpickle.decode`` in this process give these classes for PyBit's messages, and parse only JSON.

    A module ``pybit.models`` that can be imported anyway stays.
    """
    if any(isinstance(finder, Finder) for finder in sys.meta_path):
        return
    sys.meta_path.append(Finder())
    if JSONPICKLE in sys.modules:
        limit(sys.modules[JSONPICKLE])
    else:
        sys.meta_path.insert(0, Jsonpickle())
