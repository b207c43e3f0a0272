"""The catalog: what may be provisioned, and that a refused request changes nothing."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tof.agent.addresses import parse_address
from tof.agent.catalog import Catalog
from tof.agent.service_body import parse
from tof.dataplane.selection import overlap
from tof.errors import BadRequest, Conflict, NotFound, RequestError
from tof.model import Service

PINGER = ip_address("8.8.8.8")
OWN = ip_address("2001:db8:ffff::1")


def body(name="video", service="198.51.100.10", app="192.168.50.10"):
    return {"name": name, "serviceIP": service, "applicationIP": app}


def service(name="video", address="198.51.100.10", app="192.168.50.10"):
    return parse(body(name, address, app))


def test_parse_reads_the_three_fields():
    assert parse(body()) == Service("video", ip_address("198.51.100.10"), ip_address("192.168.50.10"))


def test_parse_reads_ipv6_in_any_form():
    parsed = parse(body(service="2001:DB8:0::0:1", app="2001:db8::2"))
    assert str(parsed.service_ip) == "2001:db8::1"


def test_ipv4_mapped_ipv6_is_ipv4():
    assert parse(body(service="::ffff:198.51.100.10")) == parse(body())
    assert parse_address("::ffff:c633:640a") == ip_address("198.51.100.10")


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        ({}, "name"),
        ({**body(), "name": 7}, "name"),
        ({**body(), "serviceIP": 3325256714}, "serviceIP"),
        ({"name": "video", "serviceIP": "198.51.100.10"}, "applicationIP"),
        ({**body(), "port": 80}, "port"),
        (body(name=""), "name"),
        (body(name="a b"), "name"),
        (body(name="a/b"), "name"),
        (body(name=".."), "name"),
        (body(name="video\n"), "name"),
        (body(name="x" * 64), "name"),
        (body(name="198.51.100.10"), "name"),
        (body(name="::1"), "name"),
        (body(service="video.example"), "serviceIP"),
        (body(service="198.51.100.010"), "serviceIP"),
        (body(service="198.51.100.10/24"), "serviceIP"),
        (body(service=" 198.51.100.10"), "serviceIP"),
        (body(service="2001:db8::1%eth0", app="2001:db8::2"), "serviceIP"),
        (body(service="224.0.0.1"), "serviceIP"),
        (body(service="127.0.0.1"), "serviceIP"),
        (body(service="::ffff:127.0.0.1"), "serviceIP"),
        (body(service="0.0.0.0"), "serviceIP"),
        (body(service="255.255.255.255"), "serviceIP"),
        (body(app="239.1.1.1"), "applicationIP"),
        (body(app="127.0.0.53"), "applicationIP"),
        (body(service="ff02::1", app="2001:db8::2"), "serviceIP"),
        (body(service="::1", app="2001:db8::2"), "serviceIP"),
        (body(service="::", app="2001:db8::2"), "serviceIP"),
        (body(service="fe80::1", app="2001:db8::2"), "serviceIP"),
        (body(service="2001:db8::1", app="::1"), "applicationIP"),
        (body(service="2001:db8::1"), "applicationIP"),
        (body(app="2001:db8::1"), "applicationIP"),
    ],
)
def test_parse_names_the_field_at_fault(broken, field):
    with pytest.raises(BadRequest) as caught:
        parse(broken)
    assert caught.value.field == field
    assert caught.value.status == 400


@pytest.mark.parametrize("name", ["a", "A-1_b.c", "1234", "x" * 63, "status"])
def test_good_names(name):
    assert parse(body(name=name)).name == name


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"address": "8.8.8.8"}, "serviceIP"),
        ({"address": "::ffff:8.8.8.8"}, "serviceIP"),
        ({"app": "8.8.8.8"}, "applicationIP"),
        ({"address": "2001:DB8:FFFF::1", "app": "2001:db8::9"}, "serviceIP"),
    ],
)
def test_addresses_of_the_pinger_and_the_tof_are_refused(fields, field):
    catalog = Catalog(pinger_targets=[PINGER], own_addresses=[OWN])
    with pytest.raises(BadRequest) as caught:
        catalog.put_new(service(**fields))
    assert caught.value.field == field
    assert catalog.services == ()


def test_services_are_sorted_by_name():
    catalog = Catalog()
    catalog.put_new(service("b", "198.51.100.2"))
    catalog.put_new(service("a", "198.51.100.1"))
    assert [s.name for s in catalog.services] == ["a", "b"]
    assert catalog.get("a").name == "a"


def test_a_name_is_taken_once():
    catalog = Catalog()
    catalog.put_new(service())
    with pytest.raises(Conflict) as caught:
        catalog.put_new(service(address="198.51.100.11"))
    assert caught.value.field == "name"


def test_a_service_ip_is_taken_once_in_any_form():
    catalog = Catalog()
    catalog.put_new(service())
    mapped = Service("other", ip_address("::ffff:198.51.100.10"), ip_address("192.168.50.11"))
    with pytest.raises(Conflict) as caught:
        catalog.put_new(mapped)
    assert caught.value.field == "serviceIP"
    assert catalog.services == (service(),)


def test_one_application_may_be_behind_several_services():
    catalog = Catalog()
    catalog.put_new(service())
    catalog.put_new(service("other", "198.51.100.11"))
    assert len(catalog.services) == 2


def test_replace_renames_and_frees_what_was_taken():
    catalog = Catalog()
    catalog.put_new(service())
    catalog.replace("video", service("films", "198.51.100.11"))
    assert catalog.services == (service("films", "198.51.100.11"),)
    catalog.put_new(service())
    assert catalog.replace("video", service()) == service()


def test_replace_refuses_what_belongs_to_another():
    catalog = Catalog()
    catalog.put_new(service())
    catalog.put_new(service("other", "198.51.100.11"))
    with pytest.raises(Conflict) as caught:
        catalog.replace("video", service("other", "198.51.100.12"))
    assert caught.value.field == "name"
    with pytest.raises(Conflict) as caught:
        catalog.replace("video", service(address="198.51.100.11"))
    assert caught.value.field == "serviceIP"
    with pytest.raises(NotFound):
        catalog.replace("absent", service("absent", "198.51.100.12"))
    assert len(catalog.services) == 2


@pytest.mark.parametrize("key", ["video", "198.51.100.10", "::ffff:198.51.100.10", "::FFFF:C633:640A"])
def test_remove_by_name_or_by_service_ip(key):
    catalog = Catalog()
    catalog.put_new(service())
    assert catalog.remove(key) == service()
    assert catalog.services == ()


@pytest.mark.parametrize("key", ["absent", "198.51.100.99", "192.168.50.10", ""])
def test_remove_what_is_not_there(key):
    catalog = Catalog()
    catalog.put_new(service())
    with pytest.raises(NotFound) as caught:
        catalog.remove(key)
    assert (caught.value.status, caught.value.field) == (404, "name")


# --- services that share an address ------------------------------------------------------------------------

WEB = {"protocol": "tcp", "ports": [80]}
TLS = {"protocol": "tcp", "ports": [443]}


def selective(name, address="198.51.100.10", app="192.168.50.10", **fields):
    return parse({**body(name, address, app), **fields})


def names(catalog):
    return [s.name for s in catalog.services]


def test_services_with_selections_that_do_not_overlap_share_an_address():
    catalog = Catalog()
    catalog.put_new(selective("web", **WEB))
    catalog.put_new(selective("tls", **TLS))
    catalog.put_new(selective("rest", priority=-1))
    assert names(catalog) == ["rest", "tls", "web"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (WEB, {"protocol": "tcp", "ports": ["79-81"]}),
        (WEB, {}),
        ({}, WEB),
        ({"priority": 5}, {"priority": 5}),
        ({"address": "198.51.100.0/24"}, {"address": "198.51.100.0/24"}),
        ({"mode": "shadow"}, {}),
    ],
)
def test_services_that_overlap_are_both_named_with_what_to_do(one, other):
    catalog = Catalog()
    catalog.put_new(selective("first", **one))
    with pytest.raises(
        Conflict, match="different priority, or both selections that do not overlap"
    ) as caught:
        catalog.put_new(selective("second", **other))
    assert caught.value.field == "serviceIP"
    assert "services second and first select the same packets" in caught.value.detail
    assert names(catalog) == ["first"]


def test_two_plain_services_at_one_address_are_told_in_few_words():
    catalog = Catalog()
    catalog.put_new(service())
    with pytest.raises(Conflict) as caught:
        catalog.put_new(service("other"))
    assert (caught.value.detail, caught.value.field) == (
        "198.51.100.10 already belongs to service video",
        "serviceIP",
    )


def test_a_prefix_and_what_lies_in_it_do_not_overlap():
    catalog = Catalog()
    for name, address in [
        ("all", "0.0.0.0/0"),
        ("net", "198.51.100.0/24"),
        ("half", "198.51.100.0/25"),
        ("host", "198.51.100.0"),
    ]:
        catalog.put_new(selective(name, address))
    assert len(catalog.services) == 4


def test_replace_is_not_in_its_own_way_but_in_that_of_others():
    catalog = Catalog()
    catalog.put_new(selective("web", **WEB))
    catalog.put_new(selective("tls", **TLS))
    assert (
        catalog.replace("web", selective("web", protocol="tcp", ports=["80-90"])).selection.ports[0].last
        == 90
    )
    with pytest.raises(Conflict, match="services web and tls"):
        catalog.replace("web", selective("web"))
    assert catalog.get("web").selection.ports[0].last == 90
    catalog.remove("tls")
    assert catalog.replace("web", selective("web")) == service("web")


def test_an_address_of_several_services_needs_a_name():
    catalog = Catalog()
    catalog.put_new(selective("web", **WEB))
    catalog.put_new(selective("tls", **TLS))
    for ask in (catalog.lookup, catalog.remove):
        with pytest.raises(Conflict, match="use a name: tls, web") as caught:
            ask("::ffff:198.51.100.10")
        assert caught.value.field == "name"
    assert catalog.remove("web").name == "web"
    assert catalog.remove("198.51.100.10").name == "tls"


@pytest.mark.parametrize("key", ["198.51.100.0/24", "::ffff:198.51.100.0/120"])
def test_a_prefix_is_looked_up_as_itself(key):
    catalog = Catalog()
    net = catalog.put_new(selective("net", "198.51.100.0/24"))
    for other in ("198.51.100.0", "198.51.100.0/25", "198.51.100.1/24", "198.51.100.0/99"):
        with pytest.raises(NotFound):
            catalog.lookup(other)
    assert catalog.lookup(key) == net
    host = catalog.put_new(selective("host", "198.51.100.0"))
    assert catalog.lookup("198.51.100.0/32") == host
    assert catalog.remove(key) == net


def test_a_prefix_may_contain_what_a_host_must_not_be():
    catalog = Catalog(pinger_targets=[PINGER], own_addresses=[OWN])
    catalog.put_new(selective("net", "8.8.8.8/31"))
    catalog.put_new(selective("six", "2001:db8:ffff::/48", "2001:db8:ffff::2"))
    with pytest.raises(BadRequest) as caught:
        catalog.put_new(selective("bad", "8.8.8.0/24", "8.8.8.8"))
    assert caught.value.field == "applicationIP"


def test_taken_are_the_addresses_of_hosts_while_one_service_has_them():
    catalog = Catalog(pinger_targets=[PINGER])
    kept = {PINGER.packed}
    video = ip_address("198.51.100.10").packed
    catalog.put_new(selective("web", **WEB))
    catalog.put_new(selective("tls", **TLS))
    catalog.put_new(selective("net", "8.8.8.8/31"))
    catalog.put_new(selective("around", "198.51.100.10/31"))
    assert catalog.taken == {*kept, video}
    for name in ("web", "around", "net"):
        catalog.remove(name)
        assert catalog.taken == {*kept, video}
    catalog.replace("tls", selective("tls", "198.51.100.11"))
    assert catalog.taken == {*kept, ip_address("198.51.100.11").packed}
    catalog.remove("tls")
    assert catalog.taken == kept


NAMES = st.sampled_from(["a", "b", "c", "d"])
ADDRESSES = st.sampled_from(
    ["198.51.100.1", "::ffff:198.51.100.1", "198.51.100.2", "198.51.100.2/31", "198.51.100.0/24", "8.8.8.8"]
)
MORE = st.fixed_dictionaries(
    {}, optional={"protocol": st.sampled_from(["tcp", "udp"]), "priority": st.just(1)}
)


class CatalogMachine(RuleBasedStateMachine):
    """The catalog against a plain list of services."""

    def __init__(self):
        super().__init__()
        self.catalog = Catalog(pinger_targets=[PINGER])
        self.model: list[Service] = []

    def expected(self, new, others):
        if new.service_ip == PINGER:
            return BadRequest
        if any(s.name == new.name or overlap(s, new) for s in others):
            return Conflict
        return None

    def attempt(self, call, error):
        before = self.catalog.services
        if error is None:
            call()
            return True
        with pytest.raises(error):
            call()
        assert self.catalog.services == before
        return False

    @rule(name=NAMES, address=ADDRESSES, more=MORE)
    def add(self, name, address, more):
        new = selective(name, address, **more)
        if self.attempt(lambda: self.catalog.put_new(new), self.expected(new, self.model)):
            self.model.append(new)

    @rule(old=NAMES, name=NAMES, address=ADDRESSES, more=MORE)
    def replace(self, old, name, address, more):
        new = selective(name, address, **more)
        others = [s for s in self.model if s.name != old]
        error = self.expected(new, others)
        if error is not BadRequest and len(others) == len(self.model):
            error = NotFound
        if self.attempt(lambda: self.catalog.replace(old, new), error):
            self.model = [*others, new]

    @rule(key=NAMES | ADDRESSES)
    def remove(self, key):
        network = ip_network(key.removeprefix("::ffff:")) if "." in key else None
        mine = [s for s in self.model if s.name == key or s.network == network]
        error = NotFound if not mine else Conflict if len(mine) > 1 else None
        if self.attempt(lambda: self.catalog.remove(key), error):
            self.model.remove(mine[0])

    @invariant()
    def same(self):
        assert self.catalog.services == tuple(sorted(self.model, key=lambda s: s.name))
        hosts = {s.service_ip.packed for s in self.model if s.is_host}
        assert self.catalog.taken == {PINGER.packed, *hosts}


CatalogMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestCatalogMachine = CatalogMachine.TestCase


def test_every_refusal_is_a_request_error():
    assert issubclass(BadRequest, RequestError)
    assert issubclass(NotFound, RequestError)
    assert issubclass(Conflict, RequestError)
