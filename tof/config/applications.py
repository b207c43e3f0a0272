"""``[applications.NAME]``: applications that have ports of their own, and which ones may be."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from tof.config.fields import Table, interface, listed, pattern, refuse, several, unicast
from tof.config.settings import Application, Config
from tof.model import SERVICE_MAC_PREFIX, TUNNEL_MAC_PREFIX

MOST_APPLICATIONS: Final = 1024
MOST_ADDRESSES: Final = 8
MOST_GROUPS: Final = 16
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_GROUP_MEMBER: Final = 0x01
_mac_text = pattern(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", "a MAC address such as 52:54:00:00:00:01")


def read_applications(root: Table) -> tuple[Application, ...]:
    """The applications in the configuration, sorted by name."""
    table = root.table("applications")
    found = []
    for name in table.keys:
        one = table.table(name)
        found.append(
            Application(
                name,
                one.take("interface", interface),
                one.take("mac", _mac),
                one.take("addresses", several(unicast)),
                one.take("security_groups", listed(_group), ()),
            )
        )
        one.done()
    return tuple(sorted(found, key=lambda application: application.name))


def checked_application(given: Application, config: Config, others: Iterable[Application]) -> Application:
    """``given`` if it can have a port beside ``others`` (itself excepted); SetupError names what is wrong."""
    path, others = f"applications.{given.name}", [one for one in others if one.name != given.name]
    if not re.fullmatch(NAME, given.name):
        refuse(path, "a name is 1 to 63 of A-Z, a-z, 0-9, '.', '_' and -, and begins with a letter or digit")
    if len(others) >= MOST_APPLICATIONS:
        refuse(path, f"there are {len(others)} already")
    interfaces = {
        *config.s1.interfaces,
        config.ue.app_interface,
        *config.mirror.interfaces,
        *config.names.devices,
    }
    interfaces |= {device for vnf in config.vnfs for device in (vnf.ingress, vnf.egress)}
    interfaces |= {one.interface for one in others}
    if given.interface in interfaces:
        refuse(
            f"{path}.interface", f"{given.interface} is in use already: an application needs one of its own"
        )
    if given.mac[:2] in (SERVICE_MAC_PREFIX, TUNNEL_MAC_PREFIX):
        refuse(f"{path}.mac", f"{given.mac.hex(':')} is the TOF's: 02:70 and 02:72 begin its own addresses")
    if given.mac[0] & _GROUP_MEMBER or given.mac == bytes(6):
        refuse(f"{path}.mac", f"{given.mac.hex(':')} is no address of one adapter")
    if given.mac in {one.mac for one in others}:
        refuse(f"{path}.mac", f"{given.mac.hex(':')} is given twice")
    _check_addresses(given, config, others)
    if len(given.security_groups) > MOST_GROUPS:
        refuse(f"{path}.security_groups", f"{len(given.security_groups)} of them; {MOST_GROUPS} at most")
    return given


def _check_addresses(given: Application, config: Config, others: Iterable[Application]) -> None:
    path = f"applications.{given.name}.addresses"
    if not 1 <= len(given.addresses) <= MOST_ADDRESSES:
        refuse(path, f"{len(given.addresses)} of them; an application has 1 to {MOST_ADDRESSES}")
    taken = {address.ip: "the TOF" for address in config.ue.app_address}
    taken |= dict.fromkeys(config.dns.listen, "the TOF") | dict.fromkeys(
        config.ue.app_gateway, "ue.app_gateway"
    )
    taken |= {address: f"applications.{one.name}" for one in others for address in one.addresses}
    for address in given.addresses:
        if address in taken:
            refuse(path, f"{address} is an address of {taken[address]}")


def _mac(value: object, path: str) -> bytes:
    return bytes.fromhex(_mac_text(value, path).replace(":", ""))


def _group(value: object, path: str) -> str:
    return pattern(NAME, "the name of a security group")(value, path)
