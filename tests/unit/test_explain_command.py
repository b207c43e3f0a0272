"""`tof explain` on the command line: what it reads, prints and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.netns.gtp_explained import EDGE, ELSEWHERE, FIVE, FOUR, SERVICE, SIX, oddities
from tests.netns.gtp_packets import ping, udp
from tof.cli import main
from tof.errors import SetupError
from tof.explain.provision import policy
from tof.explain.reasons import REASONS
from tof.lab import capture
from tof.lab.capture import Frame

RECORDED = Path(__file__).resolve().parents[1] / "vectors" / "recorded"
OSMO = RECORDED / "gn_osmo_three_ues_same_teid_both_directions.pcap"
BODY = {"name": "web", "serviceIP": SERVICE, "applicationIP": EDGE}
YAML = f"""
services:
  - name: web
    serviceIP: {SERVICE}
    applicationIP: {EDGE}
"""


@pytest.fixture
def run(monkeypatch, capsys):
    """Exit status, stdout and stderr of ``tof explain``."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["tof", "explain", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return command


@pytest.fixture
def odd(tmp_path):
    frames = [item.frame for item in oddities()]
    capture.write(tmp_path / "odd.pcap", frames)
    return tmp_path / "odd.pcap"


@pytest.fixture
def provisioned(tmp_path):
    (tmp_path / "services.json").write_text(json.dumps([BODY]))
    return tmp_path / "services.json"


def document(out):
    return json.loads(out)


def test_by_flow(run):
    status, out, err = run("--capture", OSMO, "--json")
    found = document(out)
    assert (status, err, found["capture"], found["frames"], found["services"]) == (0, "", str(OSMO), 6, 0)
    assert found["verdicts"] == {"teaches": 6}
    assert found["reasons"] == {"tunnel_learnt": {"frames": 6, "why": REASONS["tunnel_learnt"]}}
    assert sum(flow["frames"] for flow in found["flows"]) == 6
    first = found["flows"][0]
    assert first.keys() == {
        "first", "last", "frames", "from", "direction", "tunnel", "ue", "packet", "verdict", "reason", "why", "detail",
        "service", "chain", "application",
    }  # fmt: skip
    assert first["tunnel"].keys() == {"vlan", "source", "destination", "teid", "qfi"}
    assert first["packet"].keys() == {"source", "destination", "protocol", "ports", "dscp", "fragment"}


def test_by_frame(run, odd, provisioned):
    status, out, _ = run(
        "--capture", odd, "--services", provisioned, "--frame", "1", "--frame", "9-10", "--json"
    )
    explained = document(out)["explained"]
    assert (status, [one["frame"] for one in explained]) == (0, [1, 9, 10])
    assert {name: explained[0][name] for name in ("verdict", "service", "application", "ue", "learnt")} == {
        "verdict": "diverted", "service": "web", "application": EDGE, "ue": FOUR.ue, "learnt": ["tunnel_learnt"],
    }  # fmt: skip
    assert explained[0]["packet"] == {
        "source": FOUR.ue, "destination": SERVICE, "protocol": "udp", "ports": [1000, 2000], "dscp": 0,
        "fragment": "whole",
    }  # fmt: skip


def test_for_people(run, odd, provisioned):
    status, out, err = run("--capture", odd, "--services", provisioned)
    lines = out.splitlines()
    assert (status, err, lines[0].split()[:3]) == (0, "", ["frames", "count", "from"])
    assert any("10.1.0.11 > 10.1.0.1 0x00001001" in line and f"web > {EDGE}" in line for line in lines)
    assert any("vlan 7" in line for line in lines)
    assert any("qfi 9" in line for line in lines)
    assert any(line.startswith("spoofed") and REASONS["spoofed"] in line for line in lines)
    _, out, _ = run("--capture", odd, "--services", provisioned, "--frame", 1)
    assert out.splitlines()[0].split()[-1] == "learnt"
    assert "[2001" not in out


def test_the_chain_and_the_application_that_a_flow_meets(run, tmp_path):
    """As a policy's file says; of several applications the one whose share the flow falls into."""
    spread = {"applications": ["192.168.50.81", "192.168.50.82"], "by": "flow"}
    policy = {
        "chains": [{"name": "inspected", "vnfs": ["firewall", "monitor"], "vlan": 40}],
        "services": [{**BODY, "chain": "inspected", "spread": spread}],
    }
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    said = [FOUR.uplink(udp(FOUR.ue, SERVICE, port, 53)) for port in range(1000, 1040)]
    capture.write(tmp_path / "flows.pcap", [Frame(n, n, data, len(data)) for n, data in enumerate(said, 1)])
    arguments = ("--capture", tmp_path / "flows.pcap", "--services", tmp_path / "policy.json")
    flows = document(run(*arguments, "--json")[1])["flows"]
    assert all(flow["chain"] == policy["chains"][0] for flow in flows)
    assert {flow["application"] for flow in flows} == {EDGE, *spread["applications"]}
    _, out, _ = run(*arguments)
    assert "web > firewall > monitor > 192.168.50.81" in out


def test_the_addresses_of_six(run, tmp_path):
    inner = udp("2001:db8::1", "2001:db8::2", 1000, 53)
    frames = [SIX.uplink(inner), SIX.uplink(ping("2001:db8::1", "2001:db8::2", 7))]
    capture.write(tmp_path / "six.pcap", [Frame(n, n, data, len(data)) for n, data in enumerate(frames, 1)])
    _, out, _ = run("--capture", tmp_path / "six.pcap")
    assert "udp [2001:db8::1]:1000 > [2001:db8::2]:53" in out
    assert "icmpv6 2001:db8::1 > 2001:db8::2" in out
    assert "2001:db8:a::1 > 2001:db8:a::101 0x00001004" in out


def test_who_the_enbs_are_can_be_said(run, tmp_path):
    data = FOUR.downlink(udp(ELSEWHERE, FOUR.ue, 53, 1000))
    capture.write(tmp_path / "down.pcap", [Frame(1, 1, data, len(data))])
    for more, side in (((), "enb"), (("--enb", FOUR.enb), "sgw")):
        _, out, _ = run("--capture", tmp_path / "down.pcap", "--json", *more)
        assert document(out)["flows"][0]["from"] == side


@pytest.mark.parametrize("text", [json.dumps([BODY]), json.dumps({"services": [BODY]}, indent="\t"), YAML])
def test_a_file_of_services(text):
    (web,) = policy(text).services
    assert (web.name, str(web.service_ip), str(web.application_ip)) == ("web", SERVICE, EDGE)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (json.dumps([BODY, BODY | {"name": "b"}]), "services[1].serviceIP: "),
        (json.dumps([BODY, BODY | {"serviceIP": "198.51.100.1"}]), "services[1].name: "),
        (
            json.dumps([BODY | {"serviceIP": "nowhere"}]),
            "services[0].serviceIP: serviceIP is neither an IP address nor a prefix",
        ),
        (json.dumps([BODY | {"colour": "red"}]), "services[0].colour: "),
        (json.dumps([BODY, 7]), "services[1] is not an object"),
        (json.dumps({"service": []}), "service is not a field of a policy"),
        ("7", "services is missing or not a list"),
        ("a: [", "is neither JSON nor YAML: "),
    ],
)
def test_a_file_of_services_that_cannot_be(text, complaint, tmp_path, run):
    with pytest.raises(SetupError) as raised:
        policy(text)
    assert str(raised.value).startswith(complaint)
    (tmp_path / "s").write_text(text)
    status, out, err = run("--capture", OSMO, "--services", tmp_path / "s", "--json")
    assert (status, out) == (2, "")
    assert err.startswith(f"tof: {tmp_path}/s: {complaint}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "explain needs --capture FILE, or --ue ADDRESS and --to ADDRESS"),
        (("--ue", "10.0.0.1"), "explain needs --capture FILE, or --ue ADDRESS and --to ADDRESS"),
        (("--capture", OSMO, "--ue", "10.0.0.1"), "not both"),
        (("--capture", OSMO, "--port", "80"), "not both"),
        (("--services", OSMO, "--ue", "10.0.0.1", "--to", "10.0.0.2"), "go with --capture FILE"),
        (("--frame", "1", "--ue", "10.0.0.1", "--to", "10.0.0.2"), "go with --capture FILE"),
        (("--capture", "nowhere.pcap"), "nowhere.pcap: No such file or directory"),
        (("--capture", __file__), "is neither pcap nor pcapng"),
        (("--capture", OSMO, "--services", "nowhere"), "nowhere: No such file or directory"),
        (("--capture", OSMO, "--services", OSMO), "is no text"),
        (("--capture", OSMO, "--frame", "x"), "--frame: 'x' is neither N nor N-M"),
        (("--capture", OSMO, "--frame", "7"), "--frame: 7 is not within the capture's frames, 1-6"),
        (("--capture", OSMO, "--frame", "3-2"), "--frame: 3-2 is not within"),
        (("--capture", OSMO, "--enb", "x"), "--enb: 'x' is not an address"),
        (("--ue", "x", "--to", "10.0.0.2"), "--ue: 'x' is not an address"),
        (("--ue", "10.0.0.1", "--to", "::1"), "--ue and --to are of different families"),
        (
            ("--ue", "10.0.0.1", "--to", "10.0.0.2", "--protocol", "tco"),
            "--protocol: 'tco' is neither icmp, tcp",
        ),
        (("--ue", "10.0.0.1", "--to", "10.0.0.2", "--protocol", "256"), "--protocol: '256'"),
        (("--ue", "10.0.0.1", "--to", "10.0.0.2", "--port", "80"), "--port needs --protocol"),
        (("--ue", "10.0.0.1", "--to", "10.0.0.2", "--source", "x"), "--source: 'x' is not an address"),
    ],
)
def test_wrong_usage(run, arguments, complaint):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("tof: ")
    assert complaint in err
    assert err.count("\n") == 1


def test_without_an_agent(run):
    status, out, err = run("--ue", FIVE.ue, "--to", SERVICE, "--api", "unix:/nonexistent.sock", "--json")
    assert (status, out) == (1, "")
    assert "no agent answers at unix:/nonexistent.sock" in err
