"""The modules ``pybit`` and ``pybit.models``, as job code imports them, made of rbit's own classes.

Used in the workers only.
"""

from __future__ import annotations

import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from rbit import models


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds ``pybit.models``, and a package ``pybit`` around it; last, where no other finder does."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the spec of one of the two modules; None for every other name."""
        spec = ModuleSpec(fullname, self, origin=__name__, is_package=fullname == "pybit")
        return spec if fullname in {"pybit", models.MODULE} else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the classes into ``pybit.models``; the package around it stays empty."""
        if module.__name__ == models.MODULE:
            vars(module).update((cls.__name__, cls) for cls in models.MODELS.values())


def provide_pybit_models() -> None:
    """Make ``jsonpickle.decode`` in this process give these classes for PyBit's messages.

    A module ``pybit.models`` that can be imported anyway stays. jsonpickle keeps the standard library's parser
    only: it would try a body that this one refuses with others, YAML too, and nobody checked that.
    """
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
    jsonpickle = models.load_jsonpickle()
    jsonpickle.set_preferred_backend("json")
    jsonpickle.backend.json.enable_fallthrough(False)
    for name in ("simplejson", "ujson", "yaml"):
        jsonpickle.remove_backend(name)
