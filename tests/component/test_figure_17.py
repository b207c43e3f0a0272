"""The source document's Figure 17, application registration, step by step on the agent and the pipeline's rules."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.agent_world import World
from tof.agent.commands import Converge
from tof.agent.events import NextHopChanged, ServiceAdded, ServiceRemoved, ServiceReplaced
from tof.agent.service_body import parse
from tof.dataplane.desired import Desired, Ports
from tof.dataplane.flow import text
from tof.dataplane.pipeline import render
from tof.dataplane.plan import diff
from tof.dataplane.tables import CLASSIFIER, NAT
from tof.errors import BadRequest, Conflict

PORTS = Ports(ue=1, heartbeat=2, apps=3, gateway=4, pinger=5)
APP = ip_address("192.168.50.10")
BODY = {"name": "video", "serviceIP": "198.51.100.10", "applicationIP": "192.168.50.10"}


class Switch:
    """br-ue in memory: applies plans, and is asked what it holds."""

    def __init__(self):
        self.flows = {}

    def converge(self, agent):
        plan = diff({c: f.table for c, f in self.flows.items()}, self.wanted(agent))
        for cookie in plan.drop:
            del self.flows[cookie]
        self.flows.update((flow.cookie, flow) for flow in plan.put)
        return [*plan.put]

    @staticmethod
    def wanted(agent):
        return render(Desired(PORTS, (), agent.services.routes, agent.ping_routes))

    def about(self, table, address):
        return [f for f in self.flows.values() if f.table == table and address in text(f)]


def test_application_registration():
    tof, switch = World(), Switch()
    tof.say(NextHopChanged(APP, b"\x02\x00\x00\x00\x00\x0a"))
    switch.converge(tof.agent)

    # 1. Via the API it is possible to register a new application.
    request = ServiceAdded(parse(BODY))

    # 2. The TOF Control Agent validates the request and configures the Classifier.
    (converge,) = tof.say(request)
    assert converge == Converge(tof.agent.revision)
    switch.converge(tof.agent)
    assert switch.about(CLASSIFIER, "198.51.100.10")

    # 3. It waits for the end of configuration. 4. It configures the NAT to the MEC Application. 5. It waits.
    assert switch.about(NAT, "192.168.50.10")

    # 6. It replies with success ...
    assert [service.name for service in tof.agent.services.catalog.services] == ["video"]
    assert set(switch.flows) == {flow.cookie for flow in switch.wanted(tof.agent)}

    # ... or the error code if unsuccessful, and then nothing has changed.
    before = dict(switch.flows)
    with pytest.raises(Conflict) as conflict:
        tof.say(request)
    assert conflict.value.status == 409
    with pytest.raises(BadRequest) as wrong:
        parse({**BODY, "serviceIP": "somewhere"})
    assert (wrong.value.status, wrong.value.field) == (400, "serviceIP")
    assert switch.converge(tof.agent) == []
    assert switch.flows == before

    # The same way an application is updated ...
    tof.say(ServiceReplaced("video", parse({**BODY, "serviceIP": "198.51.100.20"})))
    switch.converge(tof.agent)
    assert switch.about(CLASSIFIER, "198.51.100.20")
    assert not switch.about(CLASSIFIER, "198.51.100.10")

    # ... and deleted.
    tof.say(ServiceRemoved("198.51.100.20"))
    switch.converge(tof.agent)
    assert not switch.about(CLASSIFIER, "198.51.100.20")
    assert not switch.about(NAT, "192.168.50.10")
