"""What OpenStack's services say of a server that is created, by hand: any version, any order, any fault."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.vim_wire import Talk, Wire, answer, deliver, oslo, oslo_answer, publish, request

IMAGE = "f3d420dc-eb10-4823-9592-ca1a99eae61f"
SERVERS = "/v2.1/servers"


def server_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-{number:012x}"


def request_id(number: int) -> str:
    return f"req-{server_id(number + 0x1000)}"


@dataclass
class Cloud:
    """OpenStack's services on ports of their own; calls take milliseconds since the capture's begin."""

    ports: dict[str, int] = field(default_factory=dict)
    talks: dict[str, Talk] = field(default_factory=dict)
    spoken: list[tuple[float, int, bool, Talk, bytes]] = field(default_factory=list)
    written: Wire = field(default_factory=Wire)
    hands_on: bool = True
    frame_max: int = 131_064
    body_headers: tuple[tuple[str, str], ...] = ()

    @property
    def wire(self) -> Wire:
        """All that was said, in the order of time."""
        for at_ms, _, answers, talk, raw in sorted(self.spoken, key=lambda said: said[:2]):
            (talk.answer if answers else talk.ask)(at_ms, raw)
        self.spoken.clear()
        return self.written

    def _say(self, at_ms: float, talk: Talk, raw: bytes, *, answers: bool = False) -> None:
        self.spoken.append((at_ms, len(self.spoken), answers, talk, raw))

    def talk(self, service: str, client: str = "") -> Talk:
        usual = {"nova": 8774, "glance": 9292, "neutron": 9696, "placement": 8778, "rabbit": 5672}
        port = self.ports.get(service, usual[service])
        key = f"{service} {client}"
        if key not in self.talks:
            self.talks[key] = self.written.open(f"198.51.100.2:{port}", at_ms=0)
        return self.talks[key]

    def ask(
        self, service: str, at_ms: float, raw: bytes, back: bytes, took_ms: float = 1, client: str = ""
    ) -> None:
        talk = self.talk(service, client)
        self._say(at_ms, talk, raw)
        self._say(at_ms + took_ms, talk, back, answers=True)

    def requested(
        self, at_ms: float, number: int, status: int = 202, document: Any = None, path: str = SERVERS
    ) -> None:
        asked = {"server": {"name": f"app{number}", "imageRef": IMAGE, "flavorRef": "1"}}
        document = {"server": {"id": server_id(number)}} if document is None else document
        back = answer(status, document, [("X-OpenStack-Request-ID", request_id(number)), *self.body_headers])
        self.ask("nova", at_ms, request("POST", path, asked), back, 54, client=str(number))

    def image(self, at_ms: float, number: int) -> None:
        headers = [("X-OpenStack-Request-ID", request_id(number))] if self.hands_on else []
        raw = request("GET", f"/v2/images/{IMAGE}", None, headers)
        self.ask("glance", at_ms, raw, answer(200, {"id": IMAGE}))

    def cast(self, at_ms: float, body: bytes, *, delivered: bool = False) -> None:
        talk = self.talk("rabbit")
        packed = (
            deliver(body, frame_max=self.frame_max) if delivered else publish(body, frame_max=self.frame_max)
        )
        self._say(at_ms, talk, packed, answers=delivered)

    def told(self, at_ms: float, method: str, number: int, args: Any, **more: Any) -> None:
        body = oslo(method, args, request_id(number), **more)
        self.cast(at_ms, body)
        self.cast(at_ms + 0.5, body, delivered=True)

    def conductor(self, at_ms: float, number: int) -> None:
        built = [{"nova_object.data": {"instance_uuid": server_id(number)}}]
        self.told(at_ms, "schedule_and_build_instances", number, {"build_requests": built})

    def scheduler(self, at_ms: float, number: int) -> None:
        args = {"instance_uuids": [server_id(number)]}
        self.told(at_ms, "select_destinations", number, args, _msg_id=f"msg{number}")

    def no_valid_host(self, at_ms: float, number: int) -> None:
        self.cast(at_ms, oslo_answer(f"msg{number}", {"class": "NoValidHost", "message": "No valid host"}))

    def allocation(self, at_ms: float, number: int) -> None:
        raw = request("PUT", f"/allocations/{server_id(number)}", {"allocations": {}})
        self.ask("placement", at_ms, raw, answer(204))

    def compute(self, at_ms: float, number: int, server: int | None = None) -> None:
        uuid = server_id(number if server is None else server)
        instance = {"nova_object.data": {"uuid": uuid, "display_name": f"app{number}"}}
        self.told(at_ms, "build_and_run_instance", number, {"instance": instance})

    def port(self, at_ms: float, number: int, method: str = "PUT") -> None:
        path = "/v2.0/ports" + ("/" + server_id(0x99) if method == "PUT" else "")
        body = {"port": {"device_id": server_id(number)}}
        self.ask("neutron", at_ms, request(method, path, body), answer(200, {"port": {}}))

    def event(self, at_ms: float, number: int, name: str = "network-vif-plugged") -> None:
        body = {"events": [{"name": name, "server_uuid": server_id(number)}]}
        raw = request("POST", "/v2.1/os-server-external-events", body)
        self.ask("nova", at_ms, raw, answer(200, {}), client="neutron")

    def saved(
        self, at_ms: float, number: int, state: str = "active", changes: tuple[str, ...] = ("vm_state",)
    ) -> None:
        data = {"uuid": server_id(number), "vm_state": state}
        args = {
            "objinst": {"nova_object.data": data, "nova_object.changes": list(changes)},
            "objmethod": "save",
        }
        self.told(at_ms, "object_action", number, args)

    def polled(self, at_ms: float, number: int, status: str, fault: str = "") -> None:
        body = {"server": {"id": server_id(number), "status": status, "fault": {"message": fault}}}
        raw = request("GET", f"{SERVERS}/{server_id(number)}")
        self.ask("nova", at_ms, raw, answer(200, body), client="poll")

    def created(self, at_ms: float, number: int, scale: float = 1) -> None:
        """One that works, from the request to ACTIVE in 1000 ms."""
        self.requested(at_ms, number)
        steps = (
            (self.image, 10), (self.conductor, 50), (self.scheduler, 70), (self.allocation, 90), (self.compute, 100),
            (self.port, 300), (self.event, 700), (self.saved, 1000),
        )  # fmt: skip
        for step, after_ms in steps:
            step(at_ms + after_ms * scale, number)
