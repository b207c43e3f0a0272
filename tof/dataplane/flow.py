"""An OpenFlow rule as a value: match, actions, its cookie, and its text in ovs-ofctl syntax."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import ip_address
from typing import Final, NamedTuple, assert_never

COOKIE_PREFIX: Final = 0x70F << 52
COOKIE_PREFIX_MASK: Final = 0xFFF << 52

CT_NEW: Final = 0x01
CT_ESTABLISHED: Final = 0x02
CT_REPLY: Final = 0x08
CT_INVALID: Final = 0x10
CT_TRACKED: Final = 0x20


class Masked(NamedTuple):
    """A value of which only the bits in ``mask`` count."""

    value: bytes | int
    mask: bytes | int


Value = int | bytes | Masked
Match = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class SetField:
    """Write a header field or a register."""

    name: str
    value: int | bytes


@dataclass(frozen=True, slots=True)
class Output:
    """Send out of a port."""

    port: int


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on in a later table."""

    table: int


@dataclass(frozen=True, slots=True)
class Track:
    """Connection tracking with NAT, then on to ``table``; ``nat_*`` and ``mark`` are for connections that start here."""

    zone: int
    table: int
    nat_dst: bytes | None = None
    nat_port: int | None = None
    mark: int = 0


@dataclass(frozen=True, slots=True)
class Inspect:
    """Connection tracking without NAT, then on to ``table``; ``zone``: a number, or the register that has it."""

    zone: int | str
    table: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Remember the connection of a packet that was tracked, and mark it; ``nat_src``: it leaves as from there."""

    zone: int
    mark: int = 0
    nat_src: bytes | None = None


@dataclass(frozen=True, slots=True)
class PushVlan:
    """Tag the frame (IEEE 802.1Q)."""

    vlan: int


@dataclass(frozen=True, slots=True)
class PopVlan:
    """Take the outermost tag off."""


@dataclass(frozen=True, slots=True)
class StowDscp:
    """Put the packet's DSCP away into the MAC address ``mac``, which says that it has it (02:74 instead of 02:72)."""

    mac: str


@dataclass(frozen=True, slots=True)
class RestoreDscp:
    """Give the packet the DSCP that is in ``mac`` again, which becomes a service's own."""

    mac: str


@dataclass(frozen=True, slots=True)
class PushNsh:
    """Put the frame into an NSH (RFC 8300, MD type 1) and that into an Ethernet frame.

    Of ``source`` all but the first two bytes is zero, as in a new header: a written bit is one that the datapath looks at in
    the frame as it came, so that there would be a megaflow of each UE.
    """

    spi: int
    si: int
    source: bytes
    destination: bytes


@dataclass(frozen=True, slots=True)
class PopNsh:
    """Take out the frame that is in an NSH: what follows is a pass of its own through the datapath."""


@dataclass(frozen=True, slots=True)
class PassNsh:
    """One hop on with the same NSH: its service index from now on, one less of its TTL, and the frame's addresses."""

    si: int
    source: bytes
    destination: bytes


Action = (
    SetField
    | Output
    | Goto
    | Track
    | Inspect
    | Commit
    | PushVlan
    | PopVlan
    | StowDscp
    | RestoreDscp
    | PushNsh
    | PopNsh
    | PassNsh
)
NSH: Final = 0x894F
"""EtherType of NSH (RFC 8300, section 12.1)."""
STOWED_FIRST: Final = 42
STOWED_PREFIX: Final = 0x274
"""A stowed DSCP is the first six bits of a MAC address, which then goes on as 02:74 does."""
TAGGED: Final = Masked(0x1000, 0x1000)
"""A match of ``vlan_vid``: there is a tag, whatever it says."""
UNTAGGED: Final = Masked(0, 0x1000)
"""A match of ``vlan_vid``: there is none."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One rule of br-ue; ``note`` says in golden files which box or service it belongs to.

    ``cookie`` is the TOF's prefix and a 52-bit hash of the rule: equal cookies mean equal rules.
    """

    table: int
    priority: int
    match: Match
    actions: tuple[Action, ...] = ()
    note: str = field(default="", compare=False)
    cookie: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        digest = blake2b(_canonical(self).encode(), digest_size=8).digest()
        object.__setattr__(self, "cookie", COOKIE_PREFIX | int.from_bytes(digest, "big") >> 12)

    def __hash__(self) -> int:
        """Of the cookie: tens of thousands of rules are put into sets at every change."""
        return hash(self.cookie)

    @property
    def onward(self) -> tuple[int, ...]:
        """The tables this rule continues in."""
        return tuple(action.table for action in self.actions if isinstance(action, Goto | Track | Inspect))


class Family(NamedTuple):
    """What IPv4 and IPv6 are called in a match."""

    eth_type: int
    source: str
    destination: str
    echo_request: Match


IPV4: Final = Family(0x0800, "ipv4_src", "ipv4_dst", (("ip_proto", 1), ("icmpv4_type", 8)))
IPV6: Final = Family(0x86DD, "ipv6_src", "ipv6_dst", (("ip_proto", 58), ("icmpv6_type", 128)))


def family(packed: bytes) -> Family:
    """The family of a packed address."""
    return IPV4 if len(packed) == 4 else IPV6


def bits(value: Value) -> int:
    """A match value as a number (of a masked one, without its mask)."""
    raw = value.value if isinstance(value, Masked) else value
    return raw if isinstance(raw, int) else int.from_bytes(raw, "big")


def is_ours(cookie: int) -> bool:
    """Whether a cookie read from a switch carries the TOF's prefix."""
    return cookie & COOKIE_PREFIX_MASK == COOKIE_PREFIX


def text(flow: Flow) -> str:
    """The rule in ovs-ofctl syntax."""
    return f"cookie={flow.cookie:#x}, {_canonical(flow)}"


_OFCTL_NAMES: Final = {
    "eth_type": "dl_type",
    "eth_src": "dl_src",
    "eth_dst": "dl_dst",
    "ip_proto": "nw_proto",
    "ipv4_src": "nw_src",
    "ipv4_dst": "nw_dst",
    "icmpv4_type": "icmp_type",
    "icmpv6_type": "icmp_type",
    "vlan_vid": "vlan_tci",
    "ipv6_nd_target": "nd_target",
    "ipv6_nd_sll": "nd_sll",
    "ipv6_nd_tll": "nd_tll",
}
_MAC_BYTES: Final = 6
_PROTOCOLS: Final = {0x0800: "ip", 0x0806: "arp", 0x86DD: "ipv6"}
_CT_STATE: Final = {
    CT_NEW: "new",
    CT_ESTABLISHED: "est",
    CT_REPLY: "rpl",
    CT_INVALID: "inv",
    CT_TRACKED: "trk",
}


def _canonical(flow: Flow) -> str:
    match = ["table=" + str(flow.table), "priority=" + str(flow.priority)]
    match += [_field_text(name, value) for name, value in flow.match]
    actions = ",".join(_action_text(action) for action in flow.actions) or "drop"
    return f"{','.join(match)} actions={actions}"


def _field_text(name: str, value: Value) -> str:
    if isinstance(value, int) and name == "eth_type" and value in _PROTOCOLS:
        return _PROTOCOLS[value]
    if name == "ct_state" and isinstance(value, Masked):
        mask, on = bits(value._replace(value=value.mask)), bits(value)
        return "ct_state=" + "".join(
            ("+" if on & bit else "-") + text for bit, text in _CT_STATE.items() if mask & bit
        )
    return f"{_OFCTL_NAMES.get(name, name)}={_value_text(name, value)}"


def _value_text(name: str, value: Value) -> str:
    if isinstance(value, Masked):
        return f"{_value_text(name, value.value)}/{_value_text(name, value.mask)}"
    if isinstance(value, int):
        return f"{value:#06x}" if name in ("eth_type", "vlan_vid") else str(value)
    return value.hex(":") if len(value) == _MAC_BYTES else str(ip_address(value))


def _nsh_text(action: PushNsh | PassNsh) -> str:
    source, destination = SetField("eth_src", action.source), SetField("eth_dst", action.destination)
    if isinstance(action, PassNsh):
        addressed = f"{_action_text(source)},{_action_text(destination)}"
        return f"set_field:{action.si}->nsh_si,dec_nsh_ttl,{addressed}"
    header = f"encap(nsh(md_type=1)),set_field:{action.spi}->nsh_spi,set_field:{action.si}->nsh_si"
    prefix = int.from_bytes(action.source[:2], "big")
    return f"{header},encap(ethernet),load:{prefix:#x}->eth_src[32..47],{_action_text(destination)}"


def _track_text(track: Track) -> str:
    if track.nat_dst is None:
        return f"ct(table={track.table},zone={track.zone},nat)"
    to = _bracketed(track.nat_dst)
    to += f":{track.nat_port}" if track.nat_port is not None else ""
    marked = f",exec(set_field:{track.mark:#x}->ct_mark)" if track.mark else ""
    return f"ct(commit,table={track.table},zone={track.zone},nat(dst={to}){marked})"


def _commit_text(commit: Commit) -> str:
    nat = "" if commit.nat_src is None else f",nat(src={_bracketed(commit.nat_src)})"
    marked = f",exec(set_field:{commit.mark:#x}->ct_mark)" if commit.mark else ""
    return f"ct(commit,zone={commit.zone}{nat}{marked})"


def _bracketed(packed: bytes) -> str:
    address = ip_address(packed)
    return f"[{address}]" if address.version == 6 else str(address)


def _action_text(action: Action) -> str:
    match action:
        case SetField(name, value):
            return f"set_field:{_value_text(name, value)}->{_OFCTL_NAMES.get(name, name)}"
        case Output(port):
            return f"output:{port}"
        case Goto(table):
            return f"goto_table:{table}"
        case Track():
            return _track_text(action)
        case Inspect(zone, table):
            where = zone if isinstance(zone, int) else f"NXM_NX_{zone.upper()}[0..15]"
            return f"ct(table={table},zone={where})"
        case Commit():
            return _commit_text(action)
        case PushVlan(vlan):
            return f"push_vlan:0x8100,set_field:{vlan | 0x1000}->vlan_vid"
        case PopVlan():
            return "pop_vlan"
        case _:
            return _mark_text(action)


def _mark_text(action: StowDscp | RestoreDscp | PushNsh | PopNsh | PassNsh) -> str:
    match action:
        case StowDscp(mac):
            stow = f"move:ip_dscp[0..5]->{mac}[{STOWED_FIRST}..47]"
            return f"{stow},load:{STOWED_PREFIX:#x}->{mac}[32..{STOWED_FIRST - 1}]"
        case RestoreDscp(mac):
            return f"move:{mac}[{STOWED_FIRST}..47]->ip_dscp[0..5],load:0x272->{mac}[32..47]"
        case PushNsh() | PassNsh():
            return _nsh_text(action)
        case PopNsh():
            return "decap(),decap()"
        case _:  # pragma: no cover
            assert_never(action)
