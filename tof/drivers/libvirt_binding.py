"""libvirt's own Python binding, wherever it is: beside the TOF, or Debian's package for the system's Python."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any, Final

from tof.errors import SetupError

PACKAGE: Final = "python3-libvirt"
SYSTEM: Final = "/usr/lib/python3/dist-packages"
"""Where Debian has packages of its own Python; a virtual environment does not look there."""


def binding() -> Any:
    """The module ``libvirt``; SetupError if this Python has none."""
    for find in (importlib.import_module, _from_system):
        try:
            module: Any = find("libvirt")
        except ImportError:
            continue
        # what goes wrong is raised; it need not be printed as well
        module.registerErrorHandler(_silent, None)
        return module
    version = ".".join(map(str, sys.version_info[:2]))
    raise SetupError(
        f"a VIM of the kind libvirt needs its Python binding: install Debian's {PACKAGE}, if its Python is {version} as "
        "this one, or libvirt-python into the TOF's environment"
    )


def _from_system(name: str) -> Any:
    """Nothing else of the system's packages comes within reach; an extension for another Python is not found."""
    for part in ("libvirtmod", name):
        if sys.modules.get(part) is not None:
            continue
        spec = PathFinder.find_spec(part, [SYSTEM])
        if spec is None or spec.loader is None:
            raise ImportError(part)
        module = module_from_spec(spec)
        sys.modules[part] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[part]
            raise
    return sys.modules[name]


def _silent(_context: object, _error: object) -> None:
    pass
