"""Services in force: routes exist while the next hop answers; numbers survive restarts and tell successors apart."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tof.agent.catalog import Catalog
from tof.agent.events import AdoptedService
from tof.agent.services import ServicePlane
from tof.dataplane.desired import Serving
from tof.dataplane.selection import Facts
from tof.errors import Conflict, NotFound
from tof.model import GATEWAY_MAC, HealthCheck, Mode, OnDeath, ProbeKind, Service, Spread, SpreadBy

MAC, OTHER_MAC = b"\x02\x00\x00\x00\x00\x01", b"\x02\x00\x00\x00\x00\x02"
APP, APP2 = ip_address("192.168.50.10"), ip_address("192.168.50.11")


def video(name="video", address="198.51.100.10", app=APP):
    return Service(name, ip_address(address), ip_address(app))


@pytest.fixture
def plane():
    return ServicePlane(Catalog())


def numbers(plane):
    return {route.service.name: route.service_id for route in plane.routes}


def test_a_service_is_routed_while_its_next_hop_answers(plane):
    plane.add(video())
    assert plane.routes == ()
    assert not plane.is_resolved(APP)
    assert plane.next_hop_changed(APP, MAC)
    assert [route.next_hop_mac for route in plane.routes] == [MAC]
    assert plane.is_resolved(APP)
    assert plane.next_hop_changed(APP, OTHER_MAC)
    assert [route.next_hop_mac for route in plane.routes] == [OTHER_MAC]
    assert plane.next_hop(APP) == OTHER_MAC
    assert plane.next_hop_changed(APP, None)
    assert plane.routes == ()


def test_no_news_is_no_change(plane):
    assert not plane.next_hop_changed(APP, None)
    plane.next_hop_changed(APP, MAC)
    assert not plane.next_hop_changed(APP, MAC)


def test_the_applications_are_those_of_the_services(plane):
    plane.add(video())
    plane.add(video("game", "198.51.100.11"))
    plane.add(video("shop", "198.51.100.12", APP2))
    assert plane.applications == {APP, APP2}


def test_the_next_hop_of_a_withdrawn_application_is_forgotten(plane):
    plane.add(video())
    plane.next_hop_changed(APP, MAC)
    plane.remove("video")
    plane.add(video())
    assert plane.routes == ()
    plane.next_hop_changed(APP, MAC)
    plane.replace("video", video(app=APP2))
    plane.replace("video", video())
    assert plane.routes == ()


def test_a_refused_request_changes_nothing(plane):
    plane.add(video())
    plane.next_hop_changed(APP, MAC)
    before = plane.routes
    with pytest.raises(Conflict):
        plane.add(video("other"))
    with pytest.raises(NotFound):
        plane.replace("nobody", video("x", "198.51.100.99"))
    with pytest.raises(NotFound):
        plane.remove("nobody")
    assert plane.routes == before


def test_a_number_is_a_function_of_the_name(plane):
    other = ServicePlane(Catalog())
    for one in (plane, other):
        one.add(video())
        one.next_hop_changed(APP, MAC)
    assert numbers(plane) == numbers(other)
    assert numbers(plane)["video"] != 0


def test_a_service_provisioned_anew_has_a_new_number(plane):
    seen = set()
    for _ in range(5):
        plane.add(video())
        plane.next_hop_changed(APP, MAC)
        seen.add(numbers(plane)["video"])
        plane.remove("198.51.100.10")
    assert len(seen) == 5


def test_a_kept_service_ip_keeps_its_number(plane):
    plane.add(video())
    plane.next_hop_changed(APP, MAC)
    plane.next_hop_changed(APP2, MAC)
    before = numbers(plane)["video"]
    plane.replace("video", video("film", app=APP2))
    plane.next_hop_changed(APP2, MAC)
    assert numbers(plane) == {"film": before}
    plane.replace("film", video("film", "198.51.100.99", APP2))
    assert numbers(plane)["film"] != before


def test_a_number_that_went_with_a_service_to_another_name_is_not_given_again(plane):
    plane.add(video("b", "198.51.100.10"))
    number = plane.number(video("b"))
    plane.replace("b", video("a", "198.51.100.10"))
    assert plane.number(video("a")) == number
    plane.replace("a", video("b", "198.51.100.11"))
    assert plane.number(video("b")) != number


def test_numbers_found_in_the_data_path_stay(plane):
    plane.adopt([AdoptedService("video", 4711, 4711)])
    plane.add(video())
    plane.next_hop_changed(APP, MAC)
    assert numbers(plane) == {"video": 4711}


def test_two_services_never_share_a_number(plane):
    plane.add(video())
    plane.next_hop_changed(APP, MAC)
    wanted = numbers(plane)["video"]
    other = ServicePlane(Catalog())
    other.adopt([AdoptedService("game", wanted, wanted)])
    other.add(video())
    other.next_hop_changed(APP, MAC)
    assert numbers(other)["video"] == wanted + 0x100


def test_all_services_at_once(plane):
    for one in (video(), video("game", "198.51.100.11"), video("shop", "198.51.100.12")):
        plane.add(one)
    plane.next_hop_changed(APP, MAC)
    before = numbers(plane)
    plane.replace_all([video(app=APP), video("game", "198.51.100.77"), video("new", "198.51.100.78")])
    after = numbers(plane)
    assert after.keys() == {"video", "game", "new"}
    assert after["video"] == before["video"]
    assert after["game"] != before["game"]
    with pytest.raises(Conflict):
        plane.replace_all([video(), video("other")])
    assert numbers(plane) == after
    plane.replace_all([])
    assert plane.routes == ()
    plane.add(video("shop", "198.51.100.12"))
    plane.next_hop_changed(APP, MAC)
    assert numbers(plane)["shop"] != before["shop"]


def test_what_becomes_of_each_service(plane):
    shadow = replace(video("shade", "198.51.100.20"), mode=Mode.SHADOW)
    asked = replace(video("asked", "198.51.100.21"), health=HealthCheck(ProbeKind.ICMP))
    for one in (video(), shadow, asked):
        plane.add(one)
    assert serving(plane) == {"video": Serving.OFF, "shade": Serving.SHADOW, "asked": Serving.OFF}
    plane.next_hop_changed(APP, MAC)
    assert serving(plane) == {"video": Serving.DIVERT, "shade": Serving.SHADOW, "asked": Serving.OFF}
    assert [route.service.name for route in plane.routes] == ["asked", "video"]
    plane.health.checked("asked", APP, answered=True)
    assert serving(plane)["asked"] is Serving.DIVERT


def test_packets_are_judged_by_the_services_there_are(plane):
    ue, to = bytes((10, 45, 0, 2)), ip_address("198.51.100.10").packed
    facts = Facts(ue, to, 17, 53, 0, bytes(4), bytes(4))
    assert plane.judged(facts) is None
    plane.add(video())
    judged = plane.judged(facts)
    assert (judged.service.name, judged.service_id, judged.serving) == (
        "video",
        plane.number(video()),
        Serving.OFF,
    )
    assert plane.rules is plane.rules


def serving(plane):
    return {one.service.name: one.serving for one in plane.served}


# --- services of the TOF's own, and what DNS says at the edge --------------------------------------------------

OWN = Service("_dns", ip_address("203.0.113.53"), ip_address("192.168.50.53"), priority=1001)


def test_a_service_of_the_tofs_own_is_there_as_long_as_its_application_is():
    plane = ServicePlane(Catalog(), own=(OWN,))
    facts = Facts(bytes((10, 45, 0, 2)), OWN.service_ip.packed, 17, 53, 0, bytes(4), bytes(4))
    assert plane.judged(facts).serving is Serving.OFF
    assert [(route.service, route.next_hop_mac) for route in plane.routes] == [(OWN, GATEWAY_MAC)]
    assert plane.own_changed(lives=True)
    assert not plane.own_changed(lives=True)
    assert [one.serving for one in plane.served] == [Serving.DIVERT]
    assert plane.own_changed(lives=False)
    plane.replace_all([])
    assert [one.service for one in plane.served] == [OWN]
    assert plane.catalog.services == ()
    assert not plane.applications
    assert not ServicePlane(Catalog()).own_changed(lives=True)


def test_it_has_its_packets_before_any_other_service():
    plane = ServicePlane(Catalog(), own=(OWN,))
    plane.add(replace(video(address="203.0.113.53"), priority=1000))
    facts = Facts(bytes((10, 45, 0, 2)), OWN.service_ip.packed, 17, 53, 0, bytes(4), bytes(4))
    assert plane.judged(facts).service == OWN


def test_the_edge_says_the_names_of_services_that_are_diverted(plane):
    films = replace(video(), domain="films.example.com")
    plane.add(films)
    plane.add(replace(video("other", "198.51.100.11"), domain="films.example.com"))
    plane.add(replace(video("off", "198.51.100.12", APP2), domain="off.example.com"))
    plane.add(replace(video("trial", "198.51.100.13"), domain="trial.example.com", mode=Mode.SHADOW))
    plane.add(replace(video("named"), service_ip=None, domain="named.example.com"))
    plane.add(video("plain", "198.51.100.14"))
    assert plane.answers == {}
    plane.next_hop_changed(APP, MAC)
    both = {ip_address("198.51.100.10"), ip_address("198.51.100.11")}
    assert plane.answers == {"films.example.com": both}
    plane.remove("other")
    assert plane.answers == {"films.example.com": {ip_address("198.51.100.10")}}


# --- several applications ------------------------------------------------------------------------------------


def several(**changes):
    return replace(video(), spread=Spread((APP2,), **changes))


def udp_from(ue):
    return bytes.fromhex("4500001c00000000401100000a2d00") + bytes((ue, 203, 0, 113, 10)) + bytes(8)


def test_a_number_says_the_service_and_the_application(plane):
    plane.add(several())
    plane.next_hop_changed(APP, MAC)
    plane.next_hop_changed(APP2, OTHER_MAC)
    (served,) = plane.served
    assert served.service_id == served.numbers[0]
    assert [plane.behind(number).application_ip for number in served.numbers] == [APP, APP2]
    assert plane.behind(4711) is None
    assert [(route.service.application_ip, route.next_hop_mac, route.named) for route in plane.routes] == [
        (APP, MAC, True),
        (APP2, OTHER_MAC, True),
    ]
    plane.add(video("plain", "198.51.100.77"))
    assert plane.behind(plane.number(video("plain"))).name == "plain"


def test_a_datagram_that_nobody_knows_goes_to_its_share(plane):
    plane.add(several(by=SpreadBy.UE, on_death=OnDeath.CORE))
    plane.next_hop_changed(APP, MAC)
    (served,) = plane.served
    found = [plane.application_of(served, udp_from(ue)) for ue in range(1, 60)]
    assert {one and one.address for one in found} == {APP, None}
    plane.replace("video", video())
    (served,) = plane.served
    assert plane.application_of(served, udp_from(1)).number == served.service_id


def test_an_application_that_goes_takes_its_number_with_it(plane):
    plane.add(several())
    number = plane.served[0].numbers[1]
    plane.replace("video", video())
    assert plane.behind(number) is None
    plane.replace("video", several())
    assert plane.served[0].numbers[1] == number
    plane.remove("video")
    plane.add(several())
    assert plane.served[0].numbers[1] != number


def test_what_is_found_of_a_service_that_is_no_more_is_let_go(plane):
    found = [AdoptedService("192.168.50.11", 0x900, 0x100, lives=True), AdoptedService("video", 0x200, 0x200)]
    plane.adopt(found)
    plane.add(several())
    assert plane.served[0].service_id == 0x200


def test_another_agent_does_not_give_a_number_again():
    """Whose service it was, and that it was deleted, it cannot know."""
    first, second = ServicePlane(Catalog(), generation=7), ServicePlane(Catalog(), generation=8)
    for plane in (first, second):
        plane.add(video())
    assert first.number(video()) ^ second.number(video()) == 7 ^ 8
