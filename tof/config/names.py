"""The names an instance uses on the host."""

from __future__ import annotations

from binascii import crc32
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueNames:
    """Devices of one queue's detour: a (entry, slow lane) - b in ``bridge``, c in ``bridge`` - d (exit)."""

    bridge: str
    a: str
    b: str
    c: str
    d: str


@dataclass(frozen=True, slots=True)
class Names:
    """Every name an instance uses on the host (docs/architecture.md, Devices)."""

    br_s1: str
    br_ue: str
    queue: tuple[QueueNames, QueueNames]
    ue: str
    ue_ovs: str
    hb0: str
    hb1: str
    app0: str
    app1: str
    gw0: str
    gw1: str
    pinger0: str
    pinger1: str
    mirror0: str
    mirror1: str
    chain: str
    instance: str

    def app_pair(self, application: str) -> tuple[str, str]:
        """The veth pair of an application that has a port of its own: towards its interface, and the port."""
        number = crc32(f"{self.instance}/{application}".encode())
        return f"tofp{number:08x}a", f"tofp{number:08x}b"

    @property
    def devices(self) -> frozenset[str]:
        """All network devices, bridges included."""
        queues = {name for q in self.queue for name in (q.bridge, q.a, q.b, q.c, q.d)}
        pairs = {self.ue, self.ue_ovs, self.hb0, self.hb1, self.app0, self.app1}
        pairs |= {self.gw0, self.gw1, self.pinger0, self.pinger1, self.mirror0, self.mirror1}
        return frozenset(queues | pairs | {self.br_s1, self.br_ue})


def names_of(instance: str) -> Names:
    """Names of an instance: those of ``default`` are bare, any other instance appends ``.<name>``."""
    tail = "" if instance == "default" else f".{instance}"
    first, second = (
        QueueNames(f"br-q{n}{tail}", *(f"tofq{n}{letter}{tail}" for letter in "abcd")) for n in (0, 1)
    )
    return Names(
        br_s1=f"br-s1{tail}",
        br_ue=f"br-ue{tail}",
        queue=(first, second),
        ue=f"ue0{tail}",
        ue_ovs=f"ue0-ovs{tail}",
        hb0=f"tofhb0{tail}",
        hb1=f"tofhb1{tail}",
        app0=f"tofapp0{tail}",
        app1=f"tofapp1{tail}",
        gw0=f"tofgw0{tail}",
        gw1=f"tofgw1{tail}",
        pinger0=f"pinger0{tail}",
        pinger1=f"pinger1{tail}",
        mirror0=f"tofmir0{tail}",
        mirror1=f"tofmir1{tail}",
        chain=f"TOF-{instance}",
        instance=instance,
    )
