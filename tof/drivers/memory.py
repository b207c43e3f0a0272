"""The data path's maps as dictionaries: what XdpEndpoints is to the daemon, for tests and for reading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from tof.agent.commands import (
    DropToken,
    DropTunnel,
    PutToken,
    PutTunnel,
    SetCalm,
    SetDefault,
    SetDoubt,
    SetLeft,
    SetOwners,
    SetPeer,
    SetSession,
    TunnelCommand,
)
from tof.agent.events import AdoptedTunnel
from tof.drivers.layout import CONTAINER, ENDED, LEFT, SETTLING, TunnelRecord
from tof.errors import BackendError
from tof.model import IpAddress, Link, TunnelKey

_NO_LINK = Link(bytes(6), bytes(6), 0, 0)


@dataclass(slots=True)
class MemoryEndpoints:
    """Carries out what XdpEndpoints carries out; refuses what would leave something dangling."""

    most_tunnels: int = 1_000_000
    table: dict[TunnelKey, TunnelRecord] = field(default_factory=dict)
    peers: dict[int, int] = field(default_factory=dict)
    doubted: set[int] = field(default_factory=set)
    defaults: dict[bytes, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    services: dict[IpAddress, int] = field(default_factory=dict)
    tracked: frozenset[bytes] = frozenset()
    beat_ns: int = 0
    heard_ns: int = 0
    bypass: bool = False
    native: bool = False

    def agent_lives(self, now_ns: int) -> None:
        """The agent turns to the fragments it holds."""
        self.heard_ns = now_ns

    def heartbeat_ns(self) -> int:
        """When OVS's heartbeat last came through br-ue."""
        return self.beat_ns

    @property
    def empty(self) -> bool:
        """Whether it holds nothing about anybody."""
        maps = self.table, self.peers, self.doubted, self.defaults, self.tokens, self.services
        return not any(maps)

    def carry_out(self, command: TunnelCommand, now_ns: int) -> None:
        """Make the maps say what the command says."""
        match command:
            case PutTunnel():
                self._put_tunnel(command, now_ns)
            case SetPeer(key, index, peer):
                self._expect(key)
                self.peers[index] = peer
            case SetOwners() | SetSession() | SetLeft() | SetCalm():
                self._change(command)
            case SetDoubt(key, index, doubted):
                self._expect(key)
                (self.doubted.add if doubted else self.doubted.discard)(index)
            case DropTunnel(key, index):
                self.table.pop(key, None)
                self.peers.pop(index, None)
                self.doubted.discard(index)
            case SetDefault(ue, index):
                self._put_or_drop(self.defaults, ue, index)
            case PutToken() | DropToken():
                self._carry_out_token(command)
            case _:  # pragma: no cover
                assert_never(command)

    def _change(self, command: SetOwners | SetSession | SetLeft | SetCalm) -> None:
        record = self._expect(command.key)
        match command:
            case SetOwners(key, ues):
                self.table[key] = record._replace(ues=ues)
            case SetSession(key, session):
                self.table[key] = record._replace(session=session)
            case SetLeft(key, left):
                self.table[key] = record._replace(flags=record.flags & ~LEFT | LEFT * left)

    def _carry_out_token(self, command: PutToken | DropToken) -> None:
        if isinstance(command, PutToken):
            self.tokens[command.token] = command.index
        else:
            self.tokens.pop(command.token, None)

    def _put_tunnel(self, command: PutTunnel, now_ns: int) -> None:
        if len(self.table) >= self.most_tunnels:
            raise BackendError("no room for another tunnel")
        flags = SETTLING | (CONTAINER if command.form.qfi is not None else 0)
        self.peers[command.index] = command.peer
        self.table[command.key] = TunnelRecord(
            1 if command.dropped else 0, command.dropped, now_ns, command.ues, command.index, command.session,
            command.direction, flags, command.form.qfi or 0, command.link or _NO_LINK, now_ns, 0,
            command.identifier,
        )  # fmt: skip

    def _expect(self, key: TunnelKey) -> TunnelRecord:
        if key not in self.table:
            raise BackendError("there is no such tunnel")
        return self.table[key]

    @staticmethod
    def _put_or_drop(table: dict[bytes, int], key: bytes, value: int) -> None:
        if value:
            table[key] = value
        else:
            table.pop(key, None)

    def tunnel(self, key: TunnelKey) -> TunnelRecord | None:
        """The tunnel as the data path holds it."""
        return self.table.get(key)

    def end(self, key: TunnelKey) -> None:
        """What the data path does by itself on an End Marker."""
        record = self._expect(key)
        self.table[key] = record._replace(flags=record.flags | ENDED)

    def adopt(self) -> tuple[AdoptedTunnel, ...]:
        """What a starting agent takes over."""
        return tuple(
            AdoptedTunnel(
                key, one.number, one.session, one.direction, one.exact, one.form, bool(one.flags & ENDED),
                self.peers[one.number], one.number in self.doubted, bool(one.flags & LEFT),
            )
            for key, one in self.table.items()
        )  # fmt: skip

    def adopt_tokens(self) -> tuple[int, ...]:
        """The tokens an earlier agent left."""
        return tuple(self.tokens)

    def set_services(self, wanted: Mapping[IpAddress, int]) -> None:
        """Divert exactly these service IPs."""
        self.services = dict(wanted)

    def set_tracked(self, addresses: Iterable[IpAddress]) -> None:
        """Leave the later fragments of these to connection tracking."""
        self.tracked = frozenset(address.packed for address in addresses)

    def drop_services(self, addresses: Iterable[IpAddress]) -> None:
        """Stop diverting these at once."""
        for address in addresses:
            self.services.pop(address, None)
