"""What local apps see of the host, who they are there, and whether they can be isolated at all."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Final

from tof.agent.sandbox import Root, Sandbox, User, isolated
from tof.config import LocalVim
from tof.drivers.commands import command
from tof.errors import BackendError, SetupError

_LINKED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def root_of(settings: LocalVim, image: str | None) -> Root:
    """What an app sees: the image, or what the configuration shows of the host; BackendError if there is none such."""
    if image is not None:
        place = settings.images / image
        if not place.is_dir():
            raise BackendError(f"there is no image {image} in {settings.images}")
        skip = ("proc", "dev", "tmp", "run", "sys")
        entries = sorted(e for e in place.iterdir() if e.name not in skip)
        links = [(os.readlink(e), f"/{e.name}") for e in entries if e.is_symlink()]
        return Root(tuple((str(e), f"/{e.name}") for e in entries if not e.is_symlink()), tuple(links))
    binds = [(str(path), str(path)) for path in settings.paths if path.is_dir()]
    links = []
    for name in _LINKED:
        path = Path("/") / name
        if path.is_symlink():
            links.append((os.readlink(path), str(path)))
        elif path.is_dir():
            binds.append((str(path), str(path)))
    if Path("/etc/resolv.conf").is_file() and not Path("/etc/resolv.conf").is_symlink():
        # The host's resolvers are not reached from there: asking them would cost each app seconds.
        binds.append(("/dev/null", "/etc/resolv.conf"))
    return Root(tuple(binds), tuple(links))


def user_of(settings: LocalVim) -> User:
    """Who apps are; SetupError if there is no such user, or it is root."""
    try:
        found = pwd.getpwnam(settings.user)
    except KeyError:
        raise SetupError(f"vim.{settings.name}.user: there is no user {settings.user}") from None
    if found.pw_uid == 0:
        raise SetupError(f"vim.{settings.name}.user: apps must not be root")
    return User(found.pw_uid, found.pw_gid)


async def own_users(user: User, root: Root) -> bool:
    """Whether apps get user namespaces of their own, tried; BackendError if they cannot be isolated at all."""
    nobody = Sandbox("", "try", "", "", b"", (), (), ())
    why = ""
    for first in (True, False):
        what = isolated(nobody, root, user, ("/usr/bin/true",), own_users=first)
        at, status = what.argv.index("--args"), what.options.index("--json-status-fd")
        options = (*what.options[:status], *what.options[status + 2 :])
        argv = (*what.argv[:at], *options, *what.argv[at + 2 :])
        try:
            await command(*argv, package="bubblewrap")
            return first
        except BackendError as error:
            why = str(error)
        except SetupError as error:
            raise BackendError(str(error)) from error
    raise BackendError(f"apps cannot be isolated: {why}")
