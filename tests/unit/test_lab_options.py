"""``tof lab``: what its command line accepts, and what it says of a play."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tof.errors import SetupError
from tof.lab.checks import Check
from tof.lab.cli import app
from tof.lab.emulation.catalogue import SCENARIOS
from tof.lab.play import Played, PlayReport
from tof.lab.play_scene import APP_MAC, PlayOptions, settings_of

FOREIGN = PlayOptions(("4g",), enb_interface="a", sgw_interface="b")


def test_scenarios_are_listed() -> None:
    table = CliRunner().invoke(app, ["scenarios"])
    assert table.exit_code == 0
    document = json.loads(CliRunner().invoke(app, ["scenarios", "--json"]).stdout)
    assert [each["name"] for each in document] == list(SCENARIOS)
    assert all(each["plays"] in table.stdout for each in document)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "which scenario"),
        (("6g",), "no scenario 6g"),
        (("4g", "--enb-interface", "a"), "go together"),
        (("4g", "--service", "203.0.113.10"), "a box of yours"),
        (("4g", "--api", "http://127.0.0.1:8080"), "--api belongs to a box of yours"),
        (("4g", "--pinger-target", "9.9.9.9"), "--pinger-target belongs to a box of yours"),
        (
            ("4g", "--enb-interface", "a", "--sgw-interface", "b", "--service", "203.0.113.10"),
            "needs --app-interface",
        ),
        (("4g", "--enb-interface", "nowhere/a", "--sgw-interface", "nowhere/b"), "nowhere"),
    ],
)
def test_what_cannot_be_played_is_said(arguments: tuple[str, ...], complaint: str) -> None:
    result = CliRunner().invoke(app, ["play", *arguments])
    assert isinstance(result.exception, SetupError)
    assert complaint in str(result.exception)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"enb": ("10.1.0.11",)}, "--enb: two nodes"),
        ({"sgw": ("10.1.0.1", "nobody")}, "--sgw: 'nobody' is not an address"),
        ({"sgw": ("10.1.0.1", "10.1.0.2=02:00")}, "--sgw: '02:00' is not a MAC"),
        ({"enb_next_hop": "router"}, "--enb-next-hop: 'router' is not a MAC"),
        ({"ue_pool": ("10.45.0.0/24",)}, "too small"),
        ({"ue_pool": ("10.45",)}, "--ue-pool: '10.45' is not a network"),
        ({"ue_pool": ("224.0.0.0/8",)}, "--ue-pool: 224.0.0.0/8 has no addresses that UEs can have"),
        ({"enb": ("10.1.0.11", "10.1.0.11")}, "--enb: an address is given twice"),
        ({"enb": ("10.1.0.1", "10.1.0.12")}, "--enb and --sgw: 10.1.0.1 cannot be both"),
        ({"sgw_interface": "a"}, "are different adapters"),
        (
            {"service": ("203.0.113.10",), "application": ("fd00::1",), "app_interface": "c"},
            "pairs of one family",
        ),
        ({"service": ("203.0.113.10",), "app_interface": "c"}, "an --application"),
    ],
)
def test_options_that_cannot_be_are_named(changes: dict[str, object], complaint: str) -> None:
    fields = {name: getattr(FOREIGN, name) for name in FOREIGN.__slots__}
    with pytest.raises(SetupError, match=complaint):
        settings_of(PlayOptions(**{**fields, **changes}))  # type: ignore[arg-type]


def test_nodes_are_where_one_says() -> None:
    fields = {name: getattr(FOREIGN, name) for name in FOREIGN.__slots__}
    given = settings_of(
        PlayOptions(
            **{
                **fields,
                "enb": ("192.0.2.1", "192.0.2.2=02:00:00:00:00:07"),
                "service": ("203.0.113.10",),
                "application": ("192.168.50.10",),
                "app_interface": "c",
                "app_gateway": ("192.168.50.1",),
                "pinger_target": ("192.0.2.99",),
                "ue_pool": ("10.60.0.0/16", "2001:db8:60::/48"),
                "sgw_next_hop": "02:00:00:00:00:08",
            }
        )
    )
    assert [place.address for place in given.enbs[:2]] == [bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))]
    assert given.enbs[1].mac == b"\x02\0\0\0\0\x07"
    assert len(given.enbs[2].address) == 16, "of the other family the default ones"
    assert given.edge is not None
    assert given.edge.applications[0].mac == APP_MAC
    assert given.targets == (bytes((192, 0, 2, 99)),)
    assert given.ue_pool == bytes((10, 60, 0, 0))
    assert given.ue_pool6[:6] == bytes.fromhex("20010db80060")
    assert given.routed
    assert settings_of(FOREIGN).edge is None


def test_the_labs_own_scene_diverts_both_families() -> None:
    edge = settings_of(PlayOptions(("4g",))).edge
    assert edge is not None
    assert [len(address) for address in edge.services] == [4, 16]


def test_a_play_is_told() -> None:
    report = PlayReport(Console(file=io.StringIO(), width=200), 7)
    assert not report.ok
    report.add(Played("4g", [Check("transparent: all", True, "2 frames", "2 frames")], {"frames": 2.0}))
    assert report.ok
    report.add(Played("5g", [Check("transparent: all", False, "2 frames", "1 frames, 1 lost")], {}))
    report.conclude()
    assert not report.ok
    said = report.console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 lost" in said
    assert "1 of 2 scenarios ok (seed 7)" in said
    document = report.document()
    assert (document["ok"], document["seed"]) == (False, 7)
    assert [each["ok"] for each in document["scenarios"]] == [True, False]
    assert document["scenarios"][0]["figures"] == {"frames": 2.0}
