"""The doctor on a real host: complete, harmless, and with a remedy for everything it finds wanting."""

from pathlib import Path

import pytest
from netns_helper import MakeNetns, Netns

from tof.config import Config, parse
from tof.drivers.doctor import Finding, State, examine

pytestmark = pytest.mark.netns


def configured(tmp_path: Path) -> Config:
    return parse(
        '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'
        f'[state]\ndir = "{tmp_path}/lib"\nrun_dir = "{tmp_path}/run"\n'
    )


def examined(host: Netns, config: Config | None) -> dict[str, Finding]:
    with host.entered():
        return {finding.name: finding for finding in examine(config)}


def test_a_good_host(netns: MakeNetns, tmp_path: Path) -> None:
    host, far = netns("host"), netns("far")
    for name in ("enb0", "sgw0", "apps0"):
        host.veth(name, far, name)
    before = host.run("iptables-save") + host.run("ip", "-o", "link")
    found = examined(host, configured(tmp_path))
    assert [one for one in found.values() if one.state is not State.OK and one.name != "IPsec on S1"] == []
    assert len(found) >= 25
    assert host.run("iptables-save") + host.run("ip", "-o", "link") == before


def test_every_complaint_has_a_remedy(netns: MakeNetns) -> None:
    found = examined(netns("host"), configured(Path("/dev/null")))
    assert found["adapters"].state is State.MISSING
    assert "there is no adapter enb0" in found["adapters"].detail
    assert found["state.dir"].state is State.MISSING
    assert all(one.remedy for one in found.values() if one.state is not State.OK)


def test_it_says_that_it_is_blind_for_ipsec(netns: MakeNetns, tmp_path: Path) -> None:
    found = examined(netns("host"), configured(tmp_path))["IPsec on S1"]
    assert found.state is State.UNKNOWN
    assert "encrypted" in found.detail
    assert "between the security gateway and the SGW" in found.remedy


@pytest.mark.parametrize("queues", [1, 4])
def test_receive_queues_of_a_real_adapter(netns: MakeNetns, tmp_path: Path, queues: int) -> None:
    host, far = netns("host"), netns("far")
    for name in ("enb0", "sgw0", "apps0"):
        ends = (
            "name",
            name,
            "numrxqueues",
            str(queues),
            "numtxqueues",
            str(queues),
            "type",
            "veth",
            "peer",
            "name",
            name,
        )
        host.run("ip", "link", "add", *ends, "netns", far.name)
        host.run("ip", "link", "set", name, "up")
    found = examined(host, configured(tmp_path))
    for name in ("enb0", "sgw0"):
        one = found[f"receive queues of {name}"]
        assert one.state is State.OK
        assert one.detail.startswith(
            "one:" if queues == 1 else "4, but all packets between an eNB and an SGW"
        )
        assert ("rx-flow-hash gtpu4 sde" in one.remedy) is (queues > 1)


def test_without_tools_and_configuration(netns: MakeNetns, monkeypatch: pytest.MonkeyPatch) -> None:
    host = netns("host")
    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        found = examined(host, None)
    assert found["ovs-vswitchd"].state is State.MISSING
    assert found["Open vSwitch version"].state is State.UNKNOWN
    assert found["iptables NFQUEUE target"].state is State.UNKNOWN
    assert found["XDP"].state is State.OK
    assert "adapters" not in found


def test_a_libvirt_vim(netns: MakeNetns, tmp_path: Path) -> None:
    vim = f'[vim.kvm]\nbackend = "libvirt"\npool = "192.168.50.64/27"\nimages = "{tmp_path}"\n'
    text = (
        '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'
        f'[state]\ndir = "{tmp_path}/lib"\nrun_dir = "{tmp_path}/run"\n'
    )
    found = examined(netns("host"), parse(text + vim + f'uri = "qemu:///system?socket={tmp_path}/none"'))
    assert found["vim.kvm"].state is State.MISSING
    assert found["vim.kvm"].remedy
