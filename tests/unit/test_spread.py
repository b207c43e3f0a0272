"""What the doctor says of receive queues, for adapters that no test host has."""

from __future__ import annotations

import pytest

from tof.drivers import spread
from tof.drivers.spread import BY_SOURCE_PORT, BY_TEID, GTPU, UDP, Spread, advice

ADDRESSES = 0x30


def test_one_queue_of_several_cpus() -> None:
    detail, remedy = advice("enb0", Spread(1, 16), cpus=4)
    assert detail.startswith("one:")
    assert remedy == "ethtool -L enb0 combined 4 (or rx 4)"
    assert advice("enb0", Spread(1, 16), cpus=1)[1] == ""
    assert advice("enb0", Spread(1, 1), cpus=8)[1] == ""


def test_by_teid_throughout_leaves_nothing_to_do() -> None:
    everything = dict.fromkeys(GTPU, ADDRESSES | BY_TEID) | dict.fromkeys(UDP, ADDRESSES)
    assert advice("enb0", Spread(8, 8, everything), 8) == (
        "8, gtpu4, gtpu6, gtpu4e, gtpu6e spread by TEID",
        "",
    )


def test_what_is_missing_for_the_other_kinds_is_said() -> None:
    some = {"gtpu4": ADDRESSES | BY_TEID, "gtpu4e": ADDRESSES, "udp4": ADDRESSES}
    detail, remedy = advice("enb0", Spread(8, 8, some), 8)
    assert detail == "8, gtpu4 spread by TEID"
    assert remedy.split("; ") == [
        f"ethtool -N enb0 rx-flow-hash {kind} sde" for kind in ("gtpu6", "gtpu4e", "gtpu6e")
    ]


def test_ports_help_only_where_they_vary() -> None:
    detail, remedy = advice("enb0", Spread(8, 8, {"udp4": ADDRESSES | BY_SOURCE_PORT}), 8)
    assert detail == "8, udp4 spread by port: as evenly as nodes vary their source ports"
    assert remedy.startswith("if the adapter can (Linux 6.9): ethtool -N enb0 rx-flow-hash gtpu4 sde; ")


@pytest.mark.parametrize("fields", [{}, {"udp4": ADDRESSES, "udp6": ADDRESSES}])
def test_by_addresses_alone_is_one_queue(fields: dict[str, int]) -> None:
    detail, remedy = advice("enb0", Spread(8, 8, fields), 8)
    assert detail == "8, but all packets between an eNB and an SGW may arrive on one"
    assert "gtpu6e sde; if nodes vary their source ports: ethtool -N enb0 rx-flow-hash udp4 sdfn" in remedy


def test_what_does_not_exist_cannot_be_asked() -> None:
    assert spread.read("nosuchadapter0") is None
