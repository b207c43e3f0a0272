"""Whether a VIM of the kind libvirt can work here, for ``tof doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread
from typing import Any, Final

from tof.config import LibvirtVim
from tof.drivers.domains import image_of
from tof.drivers.libvirt_binding import PACKAGE, binding
from tof.errors import BackendError, SetupError

WITHIN_S: Final = 10.0


def troubles(vim: LibvirtVim) -> Iterator[tuple[str, str]]:
    """What is wrong and what to do about it; nothing if all is well."""
    try:
        libvirt = binding()
    except SetupError as error:
        yield str(error), f"apt install {PACKAGE}"
        return
    if why := _asked(libvirt, vim.uri):
        yield why, "apt install libvirt-daemon-system, start libvirtd, or correct uri"
    try:
        image_of(vim.images, vim.image)
    except BackendError as error:
        yield str(error), f"tools/guest-image {vim.images / vim.image}"


def _asked(libvirt: Any, uri: str) -> str:
    """Why it does not answer."""
    found = [f"{uri} has not answered within {WITHIN_S:g} s"]

    def ask() -> None:
        try:
            libvirt.open(uri).close()
            found.append("")
        except libvirt.libvirtError as error:
            found.append(f"{uri}: {error}")

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(WITHIN_S)
    return found[-1]
