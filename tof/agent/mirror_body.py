"""Where a service's packets are mirrored to, as JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from tof.errors import BadRequest
from tof.model import Mirror

FIELDS: Final = ("interface", "file")
INTERFACE_PATTERN: Final = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
FILE_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def parse_mirror(value: object) -> Mirror:
    """The mirror that a body's ``mirror`` describes; BadRequest names the field at fault."""
    if not isinstance(value, Mapping):
        raise BadRequest("mirror is not an object", "mirror")
    for field in value:
        if field not in FIELDS:
            raise BadRequest(f"{field} is not a field of mirror", f"mirror.{field}")
    for field in value:
        if not isinstance(value[field], str):
            raise BadRequest(f"mirror.{field} is not text", f"mirror.{field}")
    return Mirror(value.get("interface", ""), value.get("file", ""))


def mirror_body(mirror: Mirror) -> dict[str, object]:
    """What ``parse_mirror`` reads."""
    return {"interface": mirror.interface} if mirror.interface else {"file": mirror.file}


def check_mirror(mirror: Mirror) -> None:
    """BadRequest unless it is either an interface or a file, and that by a name that can be one."""
    if bool(mirror.interface) == bool(mirror.file):
        raise BadRequest("mirror needs either interface or file", "mirror")
    if mirror.interface and not INTERFACE_PATTERN.fullmatch(mirror.interface):
        raise BadRequest("mirror.interface is no name of an interface", "mirror.interface")
    if mirror.file and not FILE_PATTERN.fullmatch(mirror.file):
        raise BadRequest("mirror.file must match " + FILE_PATTERN.pattern, "mirror.file")
