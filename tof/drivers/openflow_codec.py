"""OpenFlow 1.4 messages for br-ue: rules to bytes with os-ken's codec, and what comes back."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final, NamedTuple

from os_ken.lib import type_desc
from os_ken.ofproto import ofproto_v1_4, ofproto_v1_4_parser, oxm_fields
from os_ken.ofproto.ofproto_protocol import ProtocolDesc

from tof.dataplane.flow import (
    COOKIE_PREFIX,
    COOKIE_PREFIX_MASK,
    NSH,
    STOWED_FIRST,
    STOWED_PREFIX,
    Action,
    Commit,
    Flow,
    Goto,
    Inspect,
    Masked,
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
    Value,
)
from tof.model import SERVICE_MAC_PREFIX

# What a packet's connection was when it began; os-ken does not know these (NXM_NX_CT_*, ovs-fields(7)).
_CT_FIELDS: Final = (
    ("ct_nw_proto", 119, type_desc.Int1),
    ("ct_nw_src", 120, type_desc.IPv4Addr),
    ("ct_nw_dst", 121, type_desc.IPv4Addr),
    ("ct_ipv6_src", 122, type_desc.IPv6Addr),
    ("ct_ipv6_dst", 123, type_desc.IPv6Addr),
    ("ct_tp_src", 124, type_desc.Int2),
    ("ct_tp_dst", 125, type_desc.Int2),
)
ofproto_v1_4.oxm_types.extend(oxm_fields.NiciraExtended1(*field) for field in _CT_FIELDS)
oxm_fields.generate(ofproto_v1_4.__name__)
_CT_NAMES: Final = frozenset(name for name, _, _ in _CT_FIELDS)
_ofp: Any = ofproto_v1_4
_parser: Any = ofproto_v1_4_parser
_DIALECT: Final[Any] = ProtocolDesc(version=_ofp.OFP_VERSION)
_CT_COMMIT: Final = 1
_NAT_SRC: Final = 1
_NAT_DST: Final = 2
_NO_TABLE: Final = 0xFF
_LOW_16_BITS: Final = 15
"""Of a register: from bit 0 on, so many bits and one."""
_ALL_BITS: Final = (1 << 64) - 1

HELLO: Final[int] = _ofp.OFPT_HELLO
ERROR: Final[int] = _ofp.OFPT_ERROR
ECHO_REQUEST: Final[int] = _ofp.OFPT_ECHO_REQUEST
FEATURES_REPLY: Final[int] = _ofp.OFPT_FEATURES_REPLY
MULTIPART_REPLY: Final[int] = _ofp.OFPT_MULTIPART_REPLY
BARRIER_REPLY: Final[int] = _ofp.OFPT_BARRIER_REPLY
BUNDLE_CONTROL: Final[int] = _ofp.OFPT_BUNDLE_CONTROL

BUNDLE_OPEN: Final[int] = _ofp.OFPBCT_OPEN_REQUEST
BUNDLE_COMMIT: Final[int] = _ofp.OFPBCT_COMMIT_REQUEST
BUNDLE_DISCARD: Final[int] = _ofp.OFPBCT_DISCARD_REQUEST

HEADER: Final = struct.Struct("!BBHI")
_FLUSH_ZONE: Final = struct.Struct("!II6xH")
_NICIRA: Final = 0x2320
_NXT_CT_FLUSH_ZONE: Final = 29
_RAW_ENCAP, _RAW_DECAP = 46, 47
_ENCAP: Final = struct.Struct("!HI")
_MD_TYPE_1: Final = bytes.fromhex("0004010501000000")
"""The property of an encapsulation with NSH that says which kind it is."""
_ETHERNET, _NSH = 0, 1 << 16 | NSH
"""Packet types, as an encapsulation names them."""
_NEXT_PROTOCOL: Final = 0xFFFE
_FLOW_STATS: Final = struct.Struct("!HB21xQQ")


class Message(NamedTuple):
    """One message as received; ``raw`` includes the header."""

    version: int
    kind: int
    xid: int
    raw: bytes


def split(buffer: bytearray) -> Iterator[Message]:
    """Take complete messages off the front of ``buffer``."""
    while len(buffer) >= HEADER.size:
        version, kind, length, xid = HEADER.unpack_from(buffer)
        if len(buffer) < length:
            return
        raw = bytes(buffer[:length])
        del buffer[: max(length, HEADER.size)]
        yield Message(version, kind, xid, raw)


def hello(xid: int) -> bytes:
    """Offer OpenFlow 1.4."""
    return HEADER.pack(_ofp.OFP_VERSION, HELLO, HEADER.size, xid)


def echo_reply(request: Message) -> bytes:
    """Answer a keep-alive with its own payload."""
    return (
        HEADER.pack(_ofp.OFP_VERSION, _ofp.OFPT_ECHO_REPLY, len(request.raw), request.xid) + request.raw[8:]
    )


def features_request(xid: int) -> bytes:
    """Ask for the switch's features."""
    return _bytes(_parser.OFPFeaturesRequest(_DIALECT), xid)


def barrier(xid: int) -> bytes:
    """Ask for an answer once all before it is done."""
    return _bytes(_parser.OFPBarrierRequest(_DIALECT), xid)


def list_our_flows(xid: int, table: int | None = None) -> bytes:
    """Ask for the statistics of every flow that carries the TOF's cookie prefix, of one table or all."""
    where = (
        _ofp.OFPTT_ALL if table is None else table,
        _ofp.OFPP_ANY,
        _ofp.OFPG_ANY,
        COOKIE_PREFIX,
        COOKIE_PREFIX_MASK,
    )
    return _bytes(_parser.OFPFlowStatsRequest(_DIALECT, 0, *where, _parser.OFPMatch()), xid)


def bundle_control(xid: int, bundle_id: int, what: int) -> bytes:
    """Open, commit or discard an atomic, ordered bundle."""
    return _bytes(_parser.OFPBundleCtrlMsg(_DIALECT, bundle_id, what, _flags(), []), xid)


def put_in_bundle(xid: int, bundle_id: int, flow: Flow) -> bytes:
    """Add ``flow``, replacing what has the same table, priority and match."""
    fields = {name: _match_value(value) for name, value in flow.match}
    if (
        fields.keys() & _CT_NAMES
    ):  # os-ken orders fields by their numbers, and the EtherType has to come first
        fields["eth_type_nxm"] = fields.pop("eth_type")
    match = _parser.OFPMatch(**fields)
    message = _parser.OFPFlowMod(
        _DIALECT,
        cookie=flow.cookie,
        table_id=flow.table,
        command=_ofp.OFPFC_ADD,
        priority=flow.priority,
        match=match,
        instructions=_instructions(flow),
    )
    return _bytes(_parser.OFPBundleAddMsg(_DIALECT, bundle_id, _flags(), message, []), xid)


def drop_in_bundle(xid: int, bundle_id: int, cookie: int) -> bytes:
    """Delete the flow that has exactly this cookie."""
    message = _parser.OFPFlowMod(
        _DIALECT,
        cookie=cookie,
        cookie_mask=_ALL_BITS,
        table_id=_ofp.OFPTT_ALL,
        command=_ofp.OFPFC_DELETE,
        out_port=_ofp.OFPP_ANY,
        out_group=_ofp.OFPG_ANY,
        match=_parser.OFPMatch(),
    )
    return _bytes(_parser.OFPBundleAddMsg(_DIALECT, bundle_id, _flags(), message, []), xid)


def forget_connections(xid: int, zone: int) -> bytes:
    """Empty a conntrack zone (Nicira extension NXT_CT_FLUSH_ZONE)."""
    length = HEADER.size + _FLUSH_ZONE.size
    body = _FLUSH_ZONE.pack(_NICIRA, _NXT_CT_FLUSH_ZONE, zone)
    return HEADER.pack(_ofp.OFP_VERSION, _ofp.OFPT_EXPERIMENTER, length, xid) + body


def is_last_part(reply: Message) -> bool:
    """Whether no further part of a multipart reply follows."""
    return not int.from_bytes(reply.raw[10:12], "big") & _ofp.OFPMPF_REPLY_MORE


def flow_tables(reply: Message) -> Iterator[tuple[int, int]]:
    """(cookie, table) of every flow in one part of a flow statistics reply."""
    # Read by hand: os-ken would parse every match and action, at 100 us a flow, to be thrown away.
    offset = 16
    while offset < len(reply.raw):
        length, table, cookie, _ = _FLOW_STATS.unpack_from(reply.raw, offset)
        yield cookie, table
        offset += length


def flow_packets(reply: Message) -> Iterator[tuple[int, int]]:
    """(cookie, packets) of every flow in one part of a flow statistics reply."""
    offset = 16
    while offset < len(reply.raw):
        length, _, cookie, packets = _FLOW_STATS.unpack_from(reply.raw, offset)
        yield cookie, packets
        offset += length


def error_text(message: Message) -> str:
    """The name of an OpenFlow error, as in the specification."""
    kind, code = struct.unpack_from("!HH", message.raw, 8)
    return f"{_ofp.ofp_error_type_to_str(kind)}: {_ofp.ofp_error_code_to_str(kind, code)}"


def _bytes(message: Any, xid: int) -> bytes:
    message.set_xid(xid)
    message.serialize()
    return bytes(message.buf)


def _flags() -> int:
    return int(_ofp.OFPBF_ATOMIC | _ofp.OFPBF_ORDERED)


def _match_value(value: Value) -> Any:
    if isinstance(value, Masked):
        return _user(value.value), _user(value.mask)
    return _user(value)


def _user(value: int | bytes) -> int | str:
    if isinstance(value, int):
        return value
    return value.hex(":") if len(value) == 6 else str(ip_address(value))


def _instructions(flow: Flow) -> list[Any]:
    applied = [one for action in flow.actions if not isinstance(action, Goto) for one in _actions(action)]
    instructions = [_parser.OFPInstructionActions(_ofp.OFPIT_APPLY_ACTIONS, applied)] if applied else []
    goto = [_parser.OFPInstructionGotoTable(a.table) for a in flow.actions if isinstance(a, Goto)]
    return instructions + goto


def _actions(action: Action) -> list[Any]:
    match action:
        case SetField(name, value):
            return [_parser.OFPActionSetField(**{name: _user(value)})]
        case Output(port):
            return [_parser.OFPActionOutput(port, 0)]
        case Track():
            return [_track(action)]
        case Inspect(zone, table):
            source, value = ("", zone) if isinstance(zone, int) else (zone, _LOW_16_BITS)
            return [_parser.NXActionCT(0, source, value, table, 0, [])]
        case Commit():
            return [_commit(action)]
        case PushVlan(vlan):
            return [_parser.OFPActionPushVlan(0x8100), _parser.OFPActionSetField(vlan_vid=vlan | 0x1000)]
        case PopVlan():
            return [_parser.OFPActionPopVlan()]
        case StowDscp() | RestoreDscp():
            return _dscp(action)
        case PushNsh() | PopNsh() | PassNsh():
            return _nsh(action)
    raise AssertionError(action)


def _dscp(action: StowDscp | RestoreDscp) -> list[Any]:
    mac = action.mac
    if isinstance(action, StowDscp):
        return [_move("ip_dscp", 0, mac, STOWED_FIRST), _load(STOWED_PREFIX, mac, 32, STOWED_FIRST - 1)]
    prefix = int.from_bytes(SERVICE_MAC_PREFIX, "big")
    return [_move(mac, STOWED_FIRST, "ip_dscp", 0), _load(prefix, mac, 32, 47)]


def _nsh(action: PushNsh | PopNsh | PassNsh) -> list[Any]:
    if isinstance(action, PopNsh):
        return [_extension(_RAW_DECAP, _ENCAP.pack(0, _NEXT_PROTOCOL))] * 2
    index = _parser.OFPActionSetField(nsh_si=action.si)
    source, destination = (
        _parser.OFPActionSetField(**{name: _user(mac)})
        for name, mac in (("eth_src", action.source), ("eth_dst", action.destination))
    )
    if isinstance(action, PassNsh):
        return [index, _parser.NXActionDecNshTtl(), source, destination]
    return [
        _extension(_RAW_ENCAP, _ENCAP.pack(0, _NSH) + _MD_TYPE_1),
        _parser.OFPActionSetField(nsh_spi=action.spi),
        index,
        _extension(_RAW_ENCAP, _ENCAP.pack(0, _ETHERNET)),
        _load(int.from_bytes(action.source[:2], "big"), "eth_src", 32, 47),
        destination,
    ]


def _extension(subtype: int, body: bytes) -> Any:
    # os-ken 4.2 has no decapsulation, and its encapsulation with NSH raises NameError.
    return _parser.NXActionUnknown(subtype, body)


def _move(source: str, source_bit: int, to: str, to_bit: int) -> Any:
    return _parser.NXActionRegMove(source, to, 6, source_bit, to_bit)


def _load(value: int, to: str, first: int, last: int) -> Any:
    return _parser.NXActionRegLoad(first << 6 | last - first, to, value)


class _Padded:
    """An action with the padding that its length counts, which os-ken 4.2 leaves out of a NAT action."""

    def __init__(self, action: Any) -> None:
        self._action = action

    def serialize(self, buffer: bytearray, offset: int) -> None:
        """Append it to the actions in ``buffer``."""
        self._action.serialize(buffer, offset)
        buffer += bytes(-(len(buffer) - offset) % 8)


def _track(track: Track) -> Any:
    if track.nat_dst is None:
        return _parser.NXActionCT(0, "", track.zone, track.table, 0, [_parser.NXActionNAT(0)])
    marked = [_parser.OFPActionSetField(ct_mark=track.mark)] if track.mark else []
    nested = [_Padded(_nat_to(track.nat_dst, track.nat_port)), *marked]
    return _parser.NXActionCT(_CT_COMMIT, "", track.zone, track.table, 0, nested)


def _commit(commit: Commit) -> Any:
    marked = [_parser.OFPActionSetField(ct_mark=commit.mark)] if commit.mark else []
    nat = [] if commit.nat_src is None else [_Padded(_nat_to(commit.nat_src, None, _NAT_SRC))]
    return _parser.NXActionCT(_CT_COMMIT, "", commit.zone, _NO_TABLE, 0, [*nat, *marked])


def _nat_to(packed: bytes, port: int | None, end: int = _NAT_DST) -> Any:
    to: dict[str, Any] = {"range_ipv4_min" if len(packed) == 4 else "range_ipv6_min": str(ip_address(packed))}
    if port is not None:
        to["range_proto_min"] = port
    return _parser.NXActionNAT(end, **to)
