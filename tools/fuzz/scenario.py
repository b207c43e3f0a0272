"""What the data path knows while it is fuzzed: nodes, tunnels, services, flows' ends; for the maps and for the oracle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

from tof.agent.commands import AMBIGUOUS
from tof.dataplane.desired import ServedApplication, ServedService, Serving
from tof.dataplane.selection import rule_lists
from tof.model import (
    Direction,
    IpAddress,
    OnDeath,
    PortRange,
    Selection,
    Service,
    Spread,
    SpreadBy,
    TunnelKey,
)

MTU = 1500


def _packed(text: str) -> bytes:
    return ip_address(text).packed


ENB, ENB2, SGW, SGW2 = (_packed(a) for a in ("192.0.2.1", "192.0.2.2", "192.0.2.101", "192.0.2.102"))
ENB6, SGW6 = _packed("2001:db8:a::1"), _packed("2001:db8:a::101")
ENB_MAC, ENB2_MAC, SGW_MAC = (bytes.fromhex(f"02000000000{n}") for n in (1, 2, 3))
NODES = (ENB, ENB2, SGW, SGW2, ENB6, SGW6)

SERVICE, SERVICE2, SERVICE6 = _packed("203.0.113.10"), _packed("203.0.113.20"), _packed("2001:db8:ffff::10")
ELSEWHERE, ELSEWHERE6 = _packed("198.51.100.9"), _packed("2001:db8:eeee::9")
APP, APP2, APP6 = ip_address("192.168.50.10"), ip_address("192.168.50.20"), ip_address("fd00:50::10")
TRACKED = frozenset((APP2.packed,))
"""Applications behind several services: their connections are tracked on br-ue."""


def _served(
    number: int, at: str, application: IpAddress, serving: Serving = Serving.DIVERT, *, priority: int = 0,
    **selection: Any,
) -> ServedService:  # fmt: skip
    network = ip_network(at)
    length = None if network.prefixlen == network.max_prefixlen else network.prefixlen
    service = Service(
        f"service-{number}",
        network.network_address,
        application,
        length,
        Selection(**selection),
        None,
        priority,
    )
    return ServedService(service, number, serving)


def _spread(
    number: int, at: str, by: SpreadBy, on_death: OnDeath, *applications: tuple[IpAddress | str, bool]
) -> ServedService:
    """With several applications, of which those live; the numbers of the further ones begin with the service's."""
    listed = tuple(
        ServedApplication(ip_address(address), number if n == 0 else 100 * number + n, lives)
        for n, (address, lives) in enumerate(applications)
    )
    one = _served(number, at, listed[0].address)
    spread = Spread(tuple(other.address for other in listed[1:]), by, on_death)
    return replace(one, service=replace(one.service, spread=spread), applications=listed)


SERVED = (
    _served(1, "203.0.113.10", APP),
    _served(2, "2001:db8:ffff::10", APP6),
    _served(3, "203.0.113.20", APP2),
    _served(4, "203.0.113.64/26", APP2, protocol=17, ports=(PortRange(53, 80), PortRange(2152, 2152))),
    _served(5, "203.0.113.64/26", APP, Serving.SHADOW, priority=-1, ues=(ip_network("10.0.0.2/31"),)),
    _served(6, "203.0.113.70", APP, priority=-2, dscps=frozenset((0, 34))),
    _served(7, "203.0.113.70", APP, Serving.OFF, vlans=frozenset((7,))),
    _served(8, "2001:db8:ffff:8000::/49", APP6, enbs=(ip_network("192.0.2.0/24"),)),
    _served(
        9, "2001:db8:ffff:8000::/49", APP6, priority=1, protocol=6, sgws=(ip_network("2001:db8:a::/48"),)
    ),
    _served(10, "192.0.2.0/24", APP, priority=5, protocol=1),
    _spread(
        11,
        "203.0.113.30",
        SpreadBy.FLOW,
        OnDeath.CORE,
        (APP, True),
        ("192.168.50.21", False),
        ("192.168.50.22", True),
    ),
    _spread(
        12, "203.0.113.31", SpreadBy.UE, OnDeath.NEXT, (APP, False), (APP2, True), ("192.168.50.23", True)
    ),
    _spread(13, "2001:db8:ffff::20", SpreadBy.FLOW, OnDeath.NEXT, (APP6, True), ("fd00:50::11", True)),
)
RULES = rule_lists(one.service for one in SERVED)
SERVICES = tuple(
    map(
        _packed,
        ("203.0.113.10", "203.0.113.20", "203.0.113.30", "203.0.113.31", "203.0.113.70", "203.0.113.71",
         "192.0.2.9", "2001:db8:ffff::10", "2001:db8:ffff::20", "2001:db8:ffff:8000::1"),
    )
)  # fmt: skip
"""Addresses of services."""
TOKEN = 0x1122334455667788


@dataclass(frozen=True, slots=True)
class Known:
    """A tunnel that is known from the start; ``peer`` is the number of the one that answers."""

    number: int
    direction: Direction
    key: TunnelKey
    ues: tuple[bytes, ...]
    qfi: int | None = None
    peer: int = 0
    ended: bool = False
    settling: bool = False
    left: bool = False
    young: bool = False
    doubted: bool = False

    @property
    def session(self) -> int:
        return (self.number + 1) // 2


def _ue(n: int) -> bytes:
    return bytes((10, 0, 0, n))


def _prefix(n: int) -> bytes:
    return _packed(f"2001:db8:{n}::")[:8]


def _both(
    number: int, teids: tuple[int, int], ends: tuple[bytes, bytes], ues: tuple[bytes, ...],
    vlan: int | None = None, qfi: int | None = None,
) -> tuple[Known, Known]:  # fmt: skip
    radio, core = ends
    up, down = TunnelKey(radio, core, teids[0], vlan), TunnelKey(core, radio, teids[1], vlan)
    return (
        Known(number, Direction.UPLINK, up, ues, qfi, number + 1),
        Known(number + 1, Direction.DOWNLINK, down, ues, qfi),
    )


TUNNELS: tuple[Known, ...] = (
    *_both(1, (1, 2), (ENB, SGW), (_ue(1),)),
    *_both(3, (2, 1), (ENB, SGW), (_ue(2), _prefix(2)), qfi=9),
    *_both(5, (5, 5), (ENB, SGW), (_ue(3), _prefix(3)), vlan=7),
    *_both(7, (7, 8), (ENB6, SGW6), (_ue(4), _prefix(4))),
    *_both(9, (9, 9), (ENB6, SGW6), (_prefix(5),), vlan=7, qfi=1),
    *_both(11, (0xFFFFFFFF, 0x80000000), (ENB2, SGW), (_ue(7),)),
    replace(_both(13, (3, 4), (ENB2, SGW2), (_ue(7),))[0], young=True),
    _both(13, (3, 4), (ENB2, SGW2), (_ue(7),))[1],
    Known(15, Direction.UPLINK, TunnelKey(ENB, SGW, 15), (_ue(5), _prefix(6))),
    Known(17, Direction.UPLINK, TunnelKey(ENB, SGW, 17), (_ue(6),), peer=18),
    Known(18, Direction.DOWNLINK, TunnelKey(SGW, ENB, 18), (_ue(6),), ended=True),
    Known(19, Direction.UPLINK, TunnelKey(ENB, SGW, 19), (_ue(8),), peer=20, settling=True),
    Known(20, Direction.DOWNLINK, TunnelKey(SGW, ENB, 20), (_ue(8),), qfi=63, settling=True),
    Known(21, Direction.UPLINK, TunnelKey(ENB, SGW, 21), (_ue(10),), peer=22, left=True),
    Known(22, Direction.DOWNLINK, TunnelKey(SGW, ENB, 22), (_ue(10),), doubted=True),
)
DEFAULTS: dict[bytes, int] = {
    **{ue: down.number for down in TUNNELS if down.direction is Direction.DOWNLINK for ue in down.ues},
    _ue(7): AMBIGUOUS,
    _ue(9): 99,  # a tunnel that is no more
    _ue(200): 2,  # another UE's tunnel by now
}
