"""What is reported of accounts, and when they end."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dissector import dissect, flows
from tof.agent.accounting import (
    FORCED,
    IDLE,
    LACKING,
    Account,
    AccountKey,
    Ledger,
    Silence,
    body_of,
    ipfix_record,
    unreported,
)
from tof.dataplane.desired import ServedService, Serving
from tof.drivers import layout
from tof.model import Service
from tof.wire import ipfix

UE, ENB, SGW = bytes((10, 45, 0, 2)), bytes((10, 0, 0, 1)), bytes((10, 0, 1, 1))
WEB = ServedService(
    Service("web", ip_address("203.0.113.10"), ip_address("192.168.50.10")), 256, Serving.DIVERT
)
LAN = ServedService(
    Service("lan", ip_address("2001:db8:5::"), ip_address("fd00::1"), 48), 512, Serving.DIVERT
)
KEY = AccountKey(UE, ENB, SGW, None, 256)
KEY6 = AccountKey(bytes.fromhex("20010db800010002"), ENB, SGW, 7, 512)
ONE = Account(1, 2, 100, 200, 1000, 2000)


@pytest.fixture
def ledger() -> Ledger:
    made = Ledger()
    made.note((WEB, LAN))
    return made


COUNTS = st.tuples(*[st.integers(0, 1 << 40)] * 4)


@given(COUNTS, COUNTS)
def test_deltas_add_up(first: tuple[int, ...], more: tuple[int, ...]) -> None:
    before = Account(*first, 5, 6)
    now = before.plus(Account(*more, 7, 9))
    assert now.since(before) == Account(*more, 5, 9)
    assert unreported({KEY: now}, {KEY: now}) == {}


def test_an_account_that_began_anew_is_reported_whole() -> None:
    assert unreported({KEY: ONE}, {KEY: ONE._replace(first_ns=999)}) == {KEY: ONE}
    assert unreported({KEY: ONE}, {}) == {KEY: ONE}
    assert unreported({}, {KEY: ONE}) == {}


def test_both_halves_are_one(ledger: Ledger) -> None:
    """What XDP has counted, and what the agent has put together of fragments."""
    mine = KEY._replace(by_agent=True)
    for accounts in ({KEY: ONE, mine: Account(3, 0, 4000, 0, 500, 1500)}, {mine: ONE}):
        (usage,) = ledger.usage(accounts)
        assert usage.key == KEY
    (usage,) = ledger.usage({mine: Account(3, 0, 4000, 0, 500, 1500), KEY: ONE})
    assert usage.traffic == Account(4, 2, 4100, 200, 500, 2000)
    assert usage.flow_id == ledger.usage({mine: ONE})[0].flow_id


def test_names_outlive_their_services_while_they_have_accounts(ledger: Ledger) -> None:
    ledger.note((LAN,))
    ledger.forget_others({KEY.service})
    assert [(one.service, one.network) for one in ledger.usage({KEY: ONE})] == [("web", WEB.service.network)]
    ledger.forget_others(set())
    assert [(one.service, one.network) for one in ledger.usage({KEY: ONE})] == [("#256", None)]
    ledger.forget_others({KEY.service})
    assert ledger.usage({KEY6: ONE})[0].service == "lan"
    ledger.note((replace(WEB, service=replace(WEB.service, name="renamed")),))
    assert ledger.usage({KEY: ONE})[0].service == "renamed"


def test_an_empty_account_is_not_shown(ledger: Ledger) -> None:
    assert ledger.usage({KEY: Account(0, 0, 0, 0, 1, 1)}) == []


def test_the_order_is_of_services_and_ues(ledger: Ledger) -> None:
    keys = [
        KEY, KEY._replace(vlan=3), KEY._replace(ue=bytes((10, 45, 0, 10))), KEY._replace(ue=KEY6.ue), KEY6,
    ]  # fmt: skip
    assert [one.key for one in ledger.usage(dict.fromkeys(reversed(keys), ONE))] == keys
    assert len({one.flow_id for one in ledger.usage(dict.fromkeys(keys, ONE))}) == len(keys)


def test_which_accounts_are_closed(ledger: Ledger) -> None:
    gone = KEY._replace(service=768)
    accounts = {
        KEY: ONE._replace(last_ns=50),
        KEY._replace(vlan=1): ONE._replace(last_ns=150),
        KEY._replace(vlan=2): ONE._replace(last_ns=250),
        gone: ONE._replace(last_ns=150),
        gone._replace(vlan=2): ONE._replace(last_ns=250),
    }
    assert ledger.closing(accounts, Silence(100, 200)) == {KEY: IDLE, gone: FORCED}
    assert ledger.closing(accounts, Silence(100, 200, crowded=True)) == {
        KEY: IDLE, KEY._replace(vlan=1): LACKING, gone: FORCED,
    }  # fmt: skip


def test_the_body(ledger: Ledger) -> None:
    (usage,) = ledger.usage({KEY: ONE})
    assert body_of(usage, "a", "b") == {
        "service": "web", "serviceIP": "203.0.113.10", "ue": "10.45.0.2", "enb": "10.0.0.1", "sgw": "10.0.1.1",
        "vlan": None, "flow_id": f"{usage.flow_id:016x}", "start": "a", "end": "b",
        "uplink": {"packets": 1, "bytes": 100}, "downlink": {"packets": 2, "bytes": 200},
    }  # fmt: skip
    (usage,) = ledger.usage({KEY6: ONE})
    body = body_of(usage, "a", "b")
    assert (body["serviceIP"], body["ue"], body["vlan"]) == ("2001:db8:5::/48", "2001:db8:1:2::/64", 7)
    (usage,) = Ledger().usage({KEY: ONE})
    assert body_of(usage, "a", "b")["serviceIP"] == ""


def test_wireshark_reads_the_records(ledger: Ledger) -> None:
    usages = [*ledger.usage({KEY: ONE, KEY6: ONE}, IDLE), *Ledger().usage({KEY: ONE, KEY6: ONE})]
    made = [ipfix_record(one, 1_700_000_000_000, 1_700_000_000_500) for one in usages]
    four, nameless, six, nameless6 = flows(
        dissect(m.octets for m in ipfix.messages(made, 1_700_000_001, 0, 1))
    )
    assert (four["cflow.srcaddr"], four["cflow.dstaddr"], four["cflow.dstmask"]) == (
        "10.45.0.2",
        "203.0.113.10",
        "32",
    )
    assert (four["cflow.packets"], four["cflow.octets"]) == (["1", "2"], ["100", "200"])
    assert (four["cflow.appl_name"], four["cflow.flow_end_reason"]) == ("web", "1")
    assert (six["cflow.srcaddrv6"], six["cflow.srcmaskv6"]) == ("2001:db8:1:2::", "64")
    assert (six["cflow.dstaddrv6"], six["cflow.dstmaskv6"]) == ("2001:db8:5::", "48")
    assert six["cflow.dot1q_vlan_id"] == "7"
    assert (nameless["cflow.appl_name"], nameless["cflow.dstmask"]) == ("#256", "0")
    assert nameless6["cflow.flow_end_reason"] == "2"


ADDRESSES = st.sampled_from([ENB, bytes.fromhex("20010db8000000000000000000000001")])


@given(st.sampled_from([UE, KEY6.ue]), ADDRESSES, ADDRESSES, st.none() | st.integers(1, 4094), st.booleans())
def test_keys_and_values_of_the_maps(
    ue: bytes, enb: bytes, sgw: bytes, vlan: int | None, by_agent: bool
) -> None:
    key = AccountKey(ue, enb, sgw, vlan, 0xFFFFFF00, by_agent)
    assert layout.unpack_account_key(layout.pack_account_key(key)) == key
    assert layout.unpack_account(layout.pack_account(ONE)) == ONE
