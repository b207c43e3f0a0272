"""The plumbing on a real kernel: made, adopted, and taken away without a trace."""

import difflib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from netns_helper import MakeNetns, Netns

from tof.config import Config, parse
from tof.drivers import netfilter
from tof.drivers.host import Host
from tof.errors import SetupError

pytestmark = pytest.mark.netns
Make = Callable[..., Config]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def configure(tmp_path: Path) -> Make:
    """A configuration with directories of its own; adapters default to enb0, sgw0, apps0."""

    def make(name: str = "default", s1: str = "", apps: str = "apps0", extra: str = "") -> Config:
        s1 = s1 or 'enb_interface = "enb0"\nsgw_interface = "sgw0"'
        state = f'dir = "{tmp_path}/{name}/lib"\nrun_dir = "{tmp_path}/{name}/run"'
        ue = f'app_interface = "{apps}"\n{extra}'
        return parse(f'[agent]\nname = "{name}"\n[s1]\n{s1}\n[ue]\n{ue}\n[state]\n{state}\n')

    return make


@pytest.fixture
def host(netns: MakeNetns) -> Netns:
    """A host with three adapters, wired to a far end."""
    host, far = netns("host"), netns("far")
    for name in ("enb0", "sgw0", "apps0"):
        far.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        host.veth(name, far, f"far-{name}")
    return host


def up(host: Netns, config: Config) -> None:
    with host.entered():
        Host(config).up()
        netfilter.ensure(netfilter.wanted(config))


def down(host: Netns, config: Config) -> list[str]:
    with host.entered():
        return Host(config).down()


def picture(host: Netns) -> dict[str, str]:
    """Everything the TOF could have changed, as the host's own tools show it."""
    names = [line.split(":")[1].strip().split("@")[0] for line in host.run("ip", "-o", "link").splitlines()]
    seen = {
        "links": host.run("ip", "-d", "link"),
        "addresses": host.run("ip", "addr"),
        "routes": by_line(host.run("ip", "route") + host.run("ip", "-6", "route")),
        "tc": host.run("tc", "qdisc"),
        "iptables": host.run("iptables-save") + host.run("ip6tables-save"),
        "sysctls": host.run("sysctl", "-a", "-r", r"bridge|\.(ipv4|ipv6)\.conf\."),
    }
    for name in names:
        seen[f"features of {name}"] = host.run("ethtool", "-k", name)
    return {key: stable(text) for key, text in seen.items()}


def stable(text: str) -> str:
    """Without what changes by itself: timers, generated identifiers, order of bridge ports."""
    text = re.sub(r"(timer|valid_lft|preferred_lft) +[\d.]+\w*", r"\1", text)
    text = re.sub(r"(?m)^.*(stable_secret|regen_max_retry).*\n", "", text)
    text = re.sub(r"(designated_port|port_id|port_no|port_identifier) \S+", r"\1", text)
    text = re.sub(r"(?m)^# (Generated|Completed).*\n", "", text)
    return re.sub(r" (tentative|dynamic|mngtmpaddr)", "", text)


def by_line(text: str) -> str:
    return "\n".join(sorted(text.splitlines()))


def settle(host: Netns) -> None:
    """Wait until IPv6 duplicate address detection has ended."""
    host.run("sh", "-c", "for i in $(seq 50); do ip -6 addr | grep -q tentative || break; sleep 0.1; done")


def assert_same(after: dict[str, str], before: dict[str, str]) -> None:
    assert after.keys() == before.keys()
    for key, text in before.items():
        told = "\n".join(difflib.unified_diff(text.splitlines(), after[key].splitlines(), n=0, lineterm=""))
        assert not told, f"{key}: {told}"


def test_down_leaves_the_host_as_it_was(host: Netns, configure: Make) -> None:
    config = configure()
    settle(host)
    before = picture(host)
    up(host, config)
    down(host, config)
    settle(host)
    assert_same(picture(host), before)
    assert not (config.state.dir / "host.json").exists()


def test_down_is_idempotent_even_without_up(host: Netns, configure: Make) -> None:
    settle(host)
    before = picture(host)
    assert down(host, configure()) == []
    up(host, configure())
    assert "removed br-s1" in down(host, configure())
    assert down(host, configure()) == []
    settle(host)
    assert_same(picture(host), before)


def test_second_up_changes_nothing(host: Netns, configure: Make) -> None:
    config = configure(extra='app_address = ["192.168.50.1/24", "fd00::1/64"]')
    up(host, config)
    settle(host)
    host.run("sleep", "1.2")  # the kernel reports carriers late
    before = picture(host)
    watch = host.start("ip", "-o", "monitor", "link", "address", "route")
    up(host, config)
    host.run("sleep", "0.3")
    watch.terminate()
    told, _ = watch.communicate()
    assert told == ""
    assert_same(picture(host), before)


def test_up_repairs_what_is_missing(host: Netns, configure: Make) -> None:
    config = configure()
    up(host, config)
    settle(host)
    before = picture(host)
    for name in ("tofq0a", "br-q1", "ue0"):
        host.run("ip", "link", "del", name)
    host.run("ip", "link", "set", "enb0", "nomaster")
    host.run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1")
    up(host, config)
    assert picture(host).keys() == before.keys()
    assert "master br-s1" in host.run("ip", "link", "show", "enb0")
    assert picture(host)["iptables"] == before["iptables"]
    assert picture(host)["features of ue0"] == before["features of ue0"]


def test_down_when_half_is_gone(host: Netns, configure: Make) -> None:
    config = configure()
    settle(host)
    before = picture(host)
    up(host, config)
    for name in ("br-s1", "tofq1c", "br-q0", "tofgw1"):
        host.run("ip", "link", "del", name)
    host.run("iptables", "-t", "raw", "-F")
    down(host, config)
    settle(host)
    assert_same(picture(host), before)


def test_adapters_found_in_other_bridges_go_back(host: Netns, configure: Make) -> None:
    host.run("ip", "link", "add", "br-old", "type", "bridge", "forward_delay", "0", "stp_state", "0")
    host.run("ip", "link", "set", "br-old", "up")
    for name in ("enb0", "apps0"):
        host.run("ip", "link", "set", name, "master", "br-old")
    host.run("bridge", "link", "set", "dev", "enb0", "cost", "77", "learning", "off", "isolated", "on")
    host.run("ip", "link", "set", "apps0", "mtu", "1400")
    settle(host)
    before = picture(host)
    up(host, configure())
    assert "master br-s1" in host.run("ip", "link", "show", "enb0")
    assert "master" not in host.run("ip", "link", "show", "apps0")
    down(host, configure())
    settle(host)
    assert_same(picture(host), before)


def test_adapters_found_down_with_odd_offloads_go_back(host: Netns, configure: Make) -> None:
    host.run("ip", "link", "set", "enb0", "down")
    host.run("ip", "link", "set", "apps0", "promisc", "on", "mtu", "9000")
    host.run("ethtool", "-K", "enb0", "gro", "on", "tso", "off")
    host.run("ethtool", "-K", "sgw0", "tx", "off")
    host.run("sysctl", "-qw", "net.ipv6.conf.sgw0.disable_ipv6=1")
    settle(host)
    before = picture(host)
    up(host, configure())
    assert "generic-receive-offload: off" in host.run("ethtool", "-k", "enb0")
    down(host, configure())
    settle(host)
    assert_same(picture(host), before)


def test_foreign_rules_and_tables_survive(host: Netns, configure: Make) -> None:
    host.run("iptables", "-P", "FORWARD", "DROP")
    host.run("iptables", "-t", "raw", "-A", "PREROUTING", "-s", "10.9.9.9", "-j", "DROP")
    host.run("tc", "qdisc", "add", "dev", "enb0", "clsact")
    settle(host)
    before = picture(host)
    up(host, configure())
    down(host, configure())
    settle(host)
    assert_same(picture(host), before)


def test_two_instances_side_by_side(host: Netns, netns: MakeNetns, configure: Make) -> None:
    far = netns("far2")
    for name in ("enb1", "sgw1", "apps1"):
        host.veth(name, far, name)
    first = configure()
    s1 = 'enb_interface = "enb1"\nsgw_interface = "sgw1"'
    second = configure("two", s1, "apps1", 'app_address = "192.168.51.1/24"')
    settle(host)
    before = picture(host)
    up(host, first)
    up(host, second)
    with pytest.raises(SetupError, match="enb0 is in use by the TOF instance default"):
        up(host, configure("three", apps="apps1"))
    host.veth("enb2", far, "enb2")
    host.veth("sgw2", far, "sgw2")
    one = 'enb_interface = "enb2"\nsgw_interface = "sgw2"'
    with pytest.raises(SetupError, match="apps0 is in use by the TOF instance default"):
        up(host, configure("three", one, "apps0"))
    for name in ("enb2", "sgw2"):
        host.run("ip", "link", "del", name)
    down(host, first)
    assert "nf_call_iptables 0" in host.run("ip", "-d", "link", "show", "br-s1.two")
    assert host.run("sysctl", "-n", "net.bridge.bridge-nf-call-iptables").strip() == "0"
    down(host, second)
    settle(host)
    assert_same(picture(host), before)


def test_shared_adapter_keeps_its_address(host: Netns, configure: Make) -> None:
    host.run("ip", "addr", "add", "10.0.0.9/24", "dev", "enb0")
    settle(host)
    before = picture(host)
    nic = 'enb_interface = "enb0"\nsgw_interface = "enb0"\nenb = ["10.0.0.1"]\nsgw = ["10.0.0.2"]'
    config = configure(s1=nic)
    with host.entered():
        plumbing = Host(config).up()
    assert plumbing.enb == plumbing.sgw
    assert plumbing.br_s1 == 0
    assert "master" not in host.run("ip", "link", "show", "enb0")
    assert "10.0.0.9/24" in host.run("ip", "addr", "show", "enb0")
    down(host, config)
    settle(host)
    assert_same(picture(host), before)


def test_devices_are_as_documented(host: Netns, configure: Make) -> None:
    host.run("ip", "link", "set", "enb0", "mtu", "1450")
    with host.entered():
        plumbing = Host(configure()).up()
    links = host.run("ip", "-d", "-o", "link")
    details = {line.split(":")[1].strip().split("@")[0]: line for line in links.splitlines()}
    assert re.search(r"mtu 1450 .* stp_state 0 .* mcast_snooping 0 .* nf_call_iptables 0", details["br-s1"])
    for bridge in ("br-q0", "br-q1"):
        assert "nf_call_iptables 1 nf_call_ip6tables 0 nf_call_arptables 0" in details[bridge]
    for port in ("tofq0b", "tofq0c", "tofq1b", "tofq1c"):
        assert f"master br-q{port[4]}" in details[port]
        assert "learning off flood on" in details[port]
    assert "02:70:ff:ff:ff:ff" in details["tofgw0"]
    assert "inet 192.168.50.1/24" in host.run("ip", "addr", "show", "tofgw0")
    assert "PROMISC" in details["apps0"]
    assert plumbing.s1_mtu == 1450
    assert len({plumbing.ue, plumbing.ue_ovs, plumbing.app, plumbing.app0, plumbing.queue[0].a}) == 5
    for name in sorted(set(details) - {"lo"}):
        assert "inet6" not in host.run("ip", "addr", "show", name), name
    for name in ("ue0", "tofapp0", "tofhb1"):
        assert "tx-checksumming: off" in host.run("ethtool", "-k", name)


def test_bridge_says_nothing_of_its_own(host: Netns, configure: Make) -> None:
    up(host, configure())
    settle(host)
    host.run("sleep", "1")
    before = host.run("ip", "-s", "-o", "link", "show", "enb0")
    host.run("sleep", "3")
    assert host.run("ip", "-s", "-o", "link", "show", "enb0").split("TX:")[1:] == before.split("TX:")[1:]


ANOTHER_PROCESS = """
import sys
from tof.config import load
from tof.drivers.host import Host
print("ready", flush=True)
Host(load(sys.argv[1])).up()
"""


@pytest.mark.parametrize("delay_ms", [20, 100, 250])
def test_killed_at_any_moment_then_up_and_down(
    host: Netns, configure: Make, tmp_path: Path, delay_ms: int
) -> None:
    config, file = configure(), tmp_path / "tof.toml"
    state = f'[state]\ndir = "{config.state.dir}"\nrun_dir = "{config.state.run_dir}"\n'
    file.write_text(
        f'{state}[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'
    )
    settle(host)
    before = picture(host)
    process = host.start("env", f"PYTHONPATH={ROOT}", sys.executable, "-c", ANOTHER_PROCESS, str(file))
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay_ms / 1000)
    process.kill()
    process.wait()
    if delay_ms == 20:
        up(host, config)
    down(host, config)
    settle(host)
    assert_same(picture(host), before)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object with a program that passes everything, for XDP and for tc."""
    directory = tmp_path_factory.mktemp("bpf")
    source, target = directory / "pass.c", directory / "pass.o"
    text = '__attribute__((section("{0}"), used)) int tof_{0}(void *context) {{ return {1}; }}'
    source.write_text("\n".join((text.format("xdp", 2), text.format("classifier", -1))))
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", target], check=True)
    return target


@pytest.mark.parametrize("mode", ["xdpdrv", "xdpgeneric"])
def test_down_detaches_programs(host: Netns, configure: Make, program: Path, mode: str) -> None:
    settle(host)
    before = picture(host)
    up(host, configure())
    for name in ("enb0", "sgw0", "apps0"):
        host.run("ip", "link", "set", name, mode, "obj", str(program), "sec", "xdp")
        host.run("tc", "qdisc", "add", "dev", name, "clsact")
        host.run("tc", "filter", "add", "dev", name, "ingress", "bpf", "da", "obj", str(program))
    up(host, configure())
    assert "detached XDP from enb0" in down(host, configure())
    settle(host)
    assert_same(picture(host), before)


def test_only_our_filters_leave_a_clsact_that_was_there(host: Netns, configure: Make, program: Path) -> None:
    host.run("tc", "qdisc", "add", "dev", "enb0", "clsact")
    filters = "tc", "filter", "add", "dev", "enb0", "ingress"
    host.run(*filters, "pref", "9", "bpf", "da", "obj", str(program), "sec", "classifier")
    before = host.run("tc", "filter", "show", "dev", "enb0", "ingress")
    up(host, configure())
    ours = program.with_name("tof_ours.o")
    ours.write_bytes(program.read_bytes())
    host.run(*filters, "pref", "3", "bpf", "da", "obj", str(ours), "sec", "classifier")
    down(host, configure())
    assert host.run("tc", "filter", "show", "dev", "enb0", "ingress") == before
    assert "pref 9" in before


def test_a_foreign_xdp_program_is_refused(host: Netns, configure: Make, program: Path) -> None:
    host.run("ip", "link", "set", "sgw0", "xdpgeneric", "obj", str(program), "sec", "xdp")
    with pytest.raises(SetupError, match="sgw0 runs an XDP program already; detach it"):
        up(host, configure())


def test_down_stops_the_agent_and_nobody_else(host: Netns, configure: Make) -> None:
    config = configure()
    up(host, config)
    config.state.run_dir.mkdir(parents=True)
    pid_file = config.state.run_dir / "agent.pid"
    other = host.start("sleep", "60")
    pid_file.write_text(str(other.pid))
    down(host, config)
    assert other.poll() is None
    agent = host.start("bash", "-c", "exec -a tof sh -c 'echo; read x' agent")
    assert agent.stdout
    assert agent.stdout.readline() == "\n"
    pid_file.write_text(f"{agent.pid}\n")
    assert f"stopped the agent (process {agent.pid})" in down(host, config)
    assert agent.wait(timeout=5)
    assert not pid_file.exists()


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("ip link del sgw0", "s1.sgw_interface: there is no adapter sgw0 here"),
        ("ip addr add 10.0.0.9/24 dev enb0", "s1.enb_interface: enb0 carries the address 10.0.0.9/24"),
        ("ip addr add fd00::9/64 dev apps0", "ue.app_interface: apps0 carries the address fd00::9/64"),
        ("ip link add ue0 up type dummy || ip link add ue0 up type bridge", "a device ue0 exists"),
    ],
)
def test_refusals_change_nothing(host: Netns, configure: Make, prepare: str, message: str) -> None:
    host.run("sh", "-c", prepare)
    settle(host)
    before = picture(host)
    with pytest.raises(SetupError, match=f"^{re.escape(message)}"):
        up(host, configure())
    settle(host)
    assert_same(picture(host), before)
    assert not (configure().state.dir / "host.json").exists()


def test_state_directory_of_another_instance(host: Netns, configure: Make) -> None:
    up(host, configure())
    other = configure().state.dir
    record = (other / "host.json").read_text().replace('"instance": "default"', '"instance": "x"')
    (other / "host.json").write_text(record)
    with pytest.raises(SetupError, match="belongs to the instance 'x'"):
        up(host, configure())
