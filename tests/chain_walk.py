"""Frames on br-ue as dictionaries, walked through rendered rules as Open vSwitch walks them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from tof.dataplane.desired import Ports
from tof.dataplane.flow import (
    NSH,
    Flow,
    Goto,
    Output,
    PassNsh,
    PopNsh,
    PopVlan,
    PushNsh,
    PushVlan,
    RestoreDscp,
    SetField,
    StowDscp,
    Track,
)
from tof.model import GATEWAY_MAC, Service, service_mac

Frame = dict[str, Any]

PORTS = Ports(ue=1, heartbeat=2, apps=3, gateway=4, pinger=5)
MAC = bytes.fromhex("02000000a001")
TUNNEL = bytes.fromhex("027000000007")
WEB = Service("web", ip_address("203.0.113.10"), ip_address("192.168.50.10"), chain="watched")
UP_FRAME: Frame = {"in_port": 1, "eth_dst": service_mac(12), "eth_src": TUNNEL, "eth_type": 0x0800, "vlan_vid": 0,
                   "ip_dscp": 46, "ipv4_dst": bytes((203, 0, 113, 10)), "ipv4_src": bytes((10, 0, 0, 1))}  # fmt: skip
DOWN_FRAME: Frame = {"in_port": 3, "eth_dst": GATEWAY_MAC, "eth_src": MAC, "eth_type": 0x0800, "vlan_vid": 0,
                     "ip_dscp": 34, "ipv4_src": bytes((192, 168, 50, 10)), "ipv4_dst": bytes((10, 0, 0, 1))}  # fmt: skip
_METADATA = ("in_port", "reg", "ct_")


def holds(flow: Flow, frame: Frame) -> bool:
    """Whether the rule's match does."""
    for name, value in flow.match:
        have = frame.get(name, 0)
        if isinstance(value, tuple):
            number, mask = (v if isinstance(v, int) else int.from_bytes(v, "big") for v in value)
            have = have if isinstance(have, int) else int.from_bytes(have, "big")
            if have & mask != number & mask:
                return False
        elif have != value:
            return False
    return True


def walk(flows: frozenset[Flow], frame: Frame, number: int = 12) -> tuple[int, Frame] | None:
    """Where a frame leaves br-ue, and what it is then; a reply is tracked as one of the service with that number."""
    frame, table = dict(frame), 0
    while True:
        fitting = [flow for flow in flows if flow.table == table and holds(flow, frame)]
        if not fitting:
            return None
        flow = max(fitting, key=lambda flow: flow.priority)
        table, wrapped = -1, False
        for action in flow.actions:
            match action:
                case Output(port):
                    return port, {k: v for k, v in frame.items() if not k.startswith(("reg", "ct_"))}
                case Goto(to):
                    table = to
                case Track():
                    table = action.table
                    frame |= {"ct_state": 0x28 if frame["reg3"] == 2 else 0x20, "ct_mark": number}
                case _:
                    # A header taken off in the pass that put it on ends Open vSwitch, as MPLS does.
                    assert not (wrapped and isinstance(action, PopNsh))
                    wrapped = wrapped or isinstance(action, PushNsh)
                    frame = _changed(frame, action)
        if table < 0:
            return None


def _changed(frame: Frame, action: object) -> Frame:
    match action:
        case SetField(name, value):
            return frame | {name: value}
        case PushVlan(vlan):
            return frame | {"vlan_vid": vlan | 0x1000}
        case PopVlan():
            return frame | {"vlan_vid": 0}
        case StowDscp(mac):
            return frame | {mac: bytes((frame["ip_dscp"] << 2 | 2, 0x74)) + frame[mac][2:]}
        case RestoreDscp(mac):
            return frame | {"ip_dscp": frame[mac][0] >> 2, mac: b"\x02\x72" + frame[mac][2:]}
        case PushNsh(spi, si, source, destination):
            outer = {"eth_src": source, "eth_dst": destination, "eth_type": NSH, "nsh_np": 3, "nsh_ttl": 63}
            return _metadata(frame) | outer | {"nsh_spi": spi, "nsh_si": si, "vlan_vid": 0, "inner": frame}
        case PopNsh():
            return frame["inner"] | _metadata(frame)
        case PassNsh(si, source, destination):
            return frame | {
                "nsh_si": si,
                "eth_src": source,
                "eth_dst": destination,
                "nsh_ttl": frame["nsh_ttl"] - 1,
            }
    raise AssertionError(action)


def _metadata(frame: Frame) -> Frame:
    return {name: value for name, value in frame.items() if name.startswith(_METADATA)}
