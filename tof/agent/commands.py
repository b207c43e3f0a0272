"""What is asked of the world: imperative values that the daemon hands to the drivers, in order."""

from __future__ import annotations

from dataclasses import dataclass

from tof.model import Direction, Form, Link, TunnelKey


@dataclass(frozen=True, slots=True)
class PutTunnel:
    """Have the data path know this tunnel; ``dropped`` is the size of a first packet that goes no further."""

    key: TunnelKey
    index: int
    session: int
    direction: Direction
    ues: tuple[bytes, ...]
    form: Form
    peer: int = 0
    link: Link | None = None
    dropped: int = 0
    identifier: bytes = bytes(8)
    """Second half of the UE's IPv6 address, if it has one."""
    like: TunnelKey | None = None
    """Nothing has come through it yet: it takes the way of this one, between the same nodes."""


@dataclass(frozen=True, slots=True)
class SetOwners:
    """The UEs behind a known tunnel changed; everything else about it stays."""

    key: TunnelKey
    ues: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SetSession:
    """A known uplink tunnel is another session's than was thought: the one that came through another node before."""

    key: TunnelKey
    session: int


@dataclass(frozen=True, slots=True)
class SetPeer:
    """Replies to what came from tunnel ``index`` go into tunnel ``peer`` (0: none known)."""

    key: TunnelKey
    index: int
    peer: int


@dataclass(frozen=True, slots=True)
class SetDoubt:
    """Inject nothing into downlink tunnel ``index`` before its core has spoken in it again (or: do so as before)."""

    key: TunnelKey
    index: int
    doubted: bool


@dataclass(frozen=True, slots=True)
class SetCalm:
    """Foreign sources in this uplink tunnel are no news for so many seconds: its owner has been confirmed."""

    key: TunnelKey
    seconds: float


@dataclass(frozen=True, slots=True)
class SetLeft:
    """Whether the UE of this uplink tunnel has gone on through another node: its next packet here is news."""

    key: TunnelKey
    left: bool


@dataclass(frozen=True, slots=True)
class DropTunnel:
    """Forget this tunnel: its next packet is unknown again."""

    key: TunnelKey
    index: int


@dataclass(frozen=True, slots=True)
class SetDefault:
    """The downlink tunnel of ``ue`` when no flow says better; 0: none, AMBIGUOUS: behind several pairs."""

    ue: bytes
    index: int


@dataclass(frozen=True, slots=True)
class PutToken:
    """Recognise the Pinger's replies that carry ``token``."""

    token: int
    index: int


@dataclass(frozen=True, slots=True)
class DropToken:
    """``token`` is not the Pinger's any more."""

    token: int


@dataclass(frozen=True, slots=True)
class SendPing:
    """An echo request on behalf of ``ue`` (exact address) through uplink tunnel ``index``."""

    index: int
    ue: bytes
    target: bytes
    token: int
    sequence: int


@dataclass(frozen=True, slots=True)
class ReleaseFrame:
    """Give a held frame back to the UE side, where it now finds its tunnel."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class DropPacket:
    """The verdict on the packet that raised the event: it goes no further (default: it passes)."""


@dataclass(frozen=True, slots=True)
class Converge:
    """What OVS and the service table should hold changed; make them match revision ``revision``."""

    revision: int


TunnelCommand = (
    PutTunnel
    | SetOwners
    | SetSession
    | SetPeer
    | SetDoubt
    | SetCalm
    | SetLeft
    | DropTunnel
    | SetDefault
    | PutToken
    | DropToken
)
"""What the data path's maps are told."""

Command = TunnelCommand | SendPing | ReleaseFrame | DropPacket | Converge

AMBIGUOUS = 0xFFFFFFFE
