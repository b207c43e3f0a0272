"""An agent with everything around it in memory: events in, commands carried out, virtual time."""

from __future__ import annotations

from itertools import count

from tof.agent.catalog import Catalog
from tof.agent.commands import (
    AMBIGUOUS,
    Converge,
    DropPacket,
    ReleaseFrame,
    SendPing,
)
from tof.agent.core import Agent, AgentPolicy
from tof.agent.events import GpduSeen, Tick
from tof.agent.pinging import PingPolicy
from tof.agent.sessions import Sessions
from tof.drivers.layout import LEFT
from tof.drivers.memory import MemoryEndpoints
from tof.model import Form, Side, TunnelKey

ENB, ENB2, SGW, SGW2 = (bytes((192, 0, 2, n)) for n in (1, 2, 101, 102))
UE, UE2, UE3 = (bytes((10, 0, 0, n)) for n in (1, 2, 3))
UE_V6 = bytes.fromhex("20010db8000100000000000000000007")
UE2_V6 = bytes.fromhex("20010db8000200000000000000000007")
SERVER, SERVER_V6 = bytes((203, 0, 113, 9)), bytes.fromhex("20010db8ffff00000000000000000009")
TARGET, TARGET_V6 = bytes((8, 8, 8, 8)), bytes.fromhex("20014860486000000000000000008888")


def uplink(teid=1, ue=UE, enb=ENB, sgw=SGW, *, to=SERVER, vlan=None, form=Form()):  # noqa: B008
    """A UE's packet as it leaves the eNB."""
    return GpduSeen(Side.ENB, TunnelKey(enb, sgw, teid, vlan), ue, to, form, 100)


def downlink(teid=2, ue=UE, enb=ENB, sgw=SGW, *, token=None, vlan=None, form=Form()):  # noqa: B008
    """A packet to a UE as it leaves the SGW."""
    return GpduSeen(Side.SGW, TunnelKey(sgw, enb, teid, vlan), SERVER, ue, form, 100, token)


class World:
    """One agent, the data path it programs, and a clock that the test turns."""

    def __init__(self, *, most=1000, most_unconfirmed=500, **ping) -> None:
        policy = PingPolicy(ping.pop("targets", (TARGET, TARGET_V6)), **ping)
        self.policy = AgentPolicy(policy, most, most_unconfirmed)
        self.path = MemoryEndpoints()
        self.now = 0.0
        self.tokens = count(1001)
        self.start()

    def start(self) -> None:
        """A new agent on the data path as it is."""
        self.agent = Agent(self.policy, Catalog(), self.tokens)

    @property
    def sessions(self) -> Sessions:
        return self.agent.sessions

    def say(self, event):
        """What the agent answers; the data path has done it already."""
        before = self.agent.ping_routes
        commands = self.agent.handle(event, self.now)
        for command in commands:
            if not isinstance(command, SendPing | ReleaseFrame | DropPacket | Converge):
                self.path.carry_out(command, int(self.now * 1e9))
        converges = [command for command in commands if isinstance(command, Converge)]
        assert self.agent.ping_routes == before or converges, "br-ue would not learn of it"
        assert not converges or converges[-1].revision == self.agent.revision
        check(self.sessions, self.path)
        assert all(self.sessions.at(ping.index) is not None for ping in self.agent.pinging.active)
        return commands

    def hear(self, event):
        """The commands of a packet, and the tunnel it came in as it is known then."""
        commands = self.say(event)
        return self.sessions.get(event.key), commands

    def pings(self, after_s: float = 0.0) -> list[SendPing]:
        """The echo requests that go out at the Tick in ``after_s`` seconds."""
        self.now += after_s
        return [command for command in self.say(Tick()) if isinstance(command, SendPing)]

    def paired(self, up_teid=1, down_teid=2, ue=UE, enb=ENB, sgw=SGW):
        """A UE's uplink and downlink tunnel."""
        up, _ = self.hear(uplink(up_teid, ue, enb, sgw))
        down, _ = self.hear(downlink(down_teid, ue, enb, sgw))
        return up, down

    def peer(self, tunnel) -> int:
        """Where the data path answers what came in ``tunnel``."""
        return self.path.peers[tunnel.index]


def check(sessions: Sessions, path: MemoryEndpoints) -> None:
    """Every index of the registry says the same, and the data path says what the registry says."""
    tunnels = list(sessions)
    assert {t.key: (t.index, t.ues, t.session) for t in tunnels} == {
        key: (one.number, one.ues, one.session) for key, one in path.table.items()
    }
    assert {t.index: t.peer for t in tunnels} == path.peers
    assert {t.index for t in tunnels if t.doubted} == path.doubted
    assert {t.key for t in tunnels if t.left} == {key for key, one in path.table.items() if one.flags & LEFT}
    unconfirmed = {t.index for t in tunnels if not _confirmed(sessions, t)}
    assert unconfirmed == set(sessions._unconfirmed)
    for tunnel in tunnels:
        _check_tunnel(sessions, tunnel)
    seen = [(ue, t.index) for ue, context in sessions.contexts() for t in context.tunnels]
    assert sorted(seen) == sorted((ue, t.index) for t in tunnels for ue in t.ues)
    for ue, context in sessions.contexts():
        assert sessions.knows_ue(ue)
        assert context.tunnels
        assert all(t.pair == context.pair for t in context.tunnels)
    _check_defaults(sessions, path)


def _confirmed(sessions, tunnel) -> bool:
    if not tunnel.uplink:
        return any(up.peer == tunnel.index for up in sessions)
    return tunnel.peer != 0 and (tunnel.confirmed or sessions.is_first(tunnel))


def _check_tunnel(sessions, tunnel) -> None:
    assert sessions.get(tunnel.key) is tunnel
    assert sessions.at(tunnel.index) is tunnel
    assert tunnel in sessions.towards(tunnel.key.destination, tunnel.key.teid)
    assert len({len(ue) for ue in tunnel.ues}) == len(tunnel.ues)
    assert sessions.nodes.is_core(tunnel.pair[1])
    if tunnel.peer:
        down = sessions.at(tunnel.peer)
        assert not down.uplink
        assert not down.ended
        assert set(down.ues) & set(tunnel.ues), "answers would reach another UE"


def _check_defaults(sessions, path) -> None:
    told = {ue: sessions.default(ue) for ue, _ in sessions.contexts() if sessions.default(ue)}
    assert told == path.defaults
    for ue, default in told.items():
        if default != AMBIGUOUS:
            assert ue in sessions.at(default).ues
            assert not sessions.at(default).ended


def pristine(sessions: Sessions) -> bool:
    """Whether the registry is as new."""
    return (
        len(sessions) == 0
        and not list(sessions.contexts())
        and not sessions._by_index
        and not sessions._unconfirmed
        and not sessions._ues
        and vars(sessions.nodes) == vars(Sessions(1, 1).nodes)
    )
