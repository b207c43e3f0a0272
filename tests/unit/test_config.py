"""Configuration: every rule, and that any text is a Config or a SetupError."""

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tof.config import Collector, Config, Dns, TcpListen, UnixListen, load, names_of, parse
from tof.errors import SetupError

MINIMAL = """
[s1]
enb_interface = "enb0"
sgw_interface = "sgw0"
[ue]
app_interface = "apps0"
"""
SHARED = """
[s1]
enb_interface = "nic0"
sgw_interface = "nic0"
enb = {enb}
sgw = {sgw}
[ue]
app_interface = "apps0"
"""


EDGE = 'server = "unbound"\nlisten = "192.168.50.53"\nupstream = "9.9.9.9"'


def with_key(table: str, line: str) -> str:
    """The minimal configuration with one more line in a table."""
    if f"[{table}]" in MINIMAL:
        return MINIMAL.replace(f"[{table}]", f"[{table}]\n{line}")
    return f"{MINIMAL}\n[{table}]\n{line}\n"


def test_defaults() -> None:
    config = parse(MINIMAL)
    assert config.agent.name == "default"
    assert config.agent.queue_base == 0
    assert config.s1.interfaces == ("enb0", "sgw0")
    assert not config.s1.shared
    assert config.s1.xdp == "auto"
    assert config.ue.ovs == "private"
    assert config.ue.app_address == (ip_interface("192.168.50.1/24"),)
    assert config.ue.app_gateway == ()
    assert config.pinger.target == (ip_address("8.8.8.8"), ip_address("2001:4860:4860::8888"))
    assert (config.pinger.interval_s, config.pinger.attempts) == (1.0, 5)
    assert config.dns == Dns((), 60.0, 3600.0, 300.0)
    assert (config.tunnels.idle_timeout_s, config.tunnels.max) == (300.0, 1_000_000)
    assert config.api.listen == (UnixListen("/run/tof/api.sock"), TcpListen("127.0.0.1", 8080))
    assert (config.state.dir, config.state.run_dir) == (Path("/var/lib/tof"), Path("/run/tof"))
    assert (config.log.level, config.log.format) == ("info", "text")
    assert not config.accounting.on
    assert (config.accounting.interval_s, config.accounting.max_accounts) == (60.0, 262_144)


def test_a_dns_server_at_the_edge() -> None:
    dns = parse(with_key("dns", f'{EDGE}\ndivert = ["8.8.8.8", "8.8.4.4"]\nresolvers = "10.53.0.0/16"')).dns
    assert (dns.server, dns.listen) == ("unbound", (ip_address("192.168.50.53"),))
    assert [str(network) for network in dns.believed] == ["10.53.0.0/16", "8.8.8.8/32", "8.8.4.4/32"]


def test_example_file_shows_the_defaults() -> None:
    example = load(Path(__file__).parents[2] / "deploy" / "tof.toml")
    assert example == parse(MINIMAL)


def test_where_notifications_may_go() -> None:
    assert [str(network) for network in parse(MINIMAL).app_lcm.callbacks] == ["127.0.0.0/8", "::1/128"]
    assert parse(with_key("app_lcm", "callbacks = []")).app_lcm.callbacks == ()
    with pytest.raises(SetupError, match=r"app_lcm\.callbacks"):
        parse(with_key("app_lcm", 'callbacks = ["everywhere"]'))


def test_api_socket_follows_run_dir() -> None:
    config = parse(with_key("state", 'run_dir = "/run/other"'))
    assert config.api.listen[0] == UnixListen("/run/other/api.sock")


def test_accounting_is_on_as_soon_as_its_records_go_anywhere() -> None:
    to_file = parse(
        with_key("accounting", 'file = "/var/lib/tof/accounting.jsonl"\nfile_max_mb = 2\nfiles = 3')
    )
    assert to_file.accounting.on
    assert to_file.accounting.file == Path("/var/lib/tof/accounting.jsonl")
    assert (to_file.accounting.file_max_mb, to_file.accounting.files) == (2, 3)
    for text, host in (
        ("192.0.2.1", "192.0.2.1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("billing.example", "billing.example"),
    ):
        collecting = parse(with_key("accounting", f'ipfix = "udp://{text}:4739"')).accounting
        assert collecting.on
        assert collecting.ipfix == Collector(host, 4739)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('file = "records"', "accounting.file: expected an absolute path"),
        ('ipfix = "192.0.2.1:4739"', "accounting.ipfix: expected udp://host:port"),
        ('ipfix = "udp://192.0.2.1"', "accounting.ipfix: expected udp://host:port"),
        ('ipfix = "tcp://192.0.2.1:4739"', "accounting.ipfix: expected udp://host:port"),
        ('ipfix = "udp://192.0.2.1:0"', "accounting.ipfix: port 0"),
        ("interval_s = 0", "accounting.interval_s: expected a number"),
        ("max_accounts = 0", "accounting.max_accounts: expected a whole number"),
        ("files = 0", "accounting.files: expected a whole number"),
        ('netflow = "yes"', "accounting.netflow: unknown key"),
    ],
)
def test_what_accounting_refuses(line: str, why: str) -> None:
    with pytest.raises(SetupError, match=why):
        parse(with_key("accounting", line))


def test_mirrors() -> None:
    config = parse(
        with_key("mirror", 'interfaces = ["mon0", "mon1"]\ndir = "/var/lib/tof/mirror"\nfile_max_mb = 2')
    )
    assert config.mirror.interfaces == ("mon0", "mon1")
    assert (config.mirror.dir, config.mirror.file_max_mb) == (Path("/var/lib/tof/mirror"), 2)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('interfaces = ["enb0"]', "mirror.interfaces: enb0 is in use already"),
        ('interfaces = ["apps0"]', "mirror.interfaces: apps0 is in use already"),
        ('interfaces = ["tofmir1"]', "mirror.interfaces: tofmir1 is a device of the TOF itself"),
        ('interfaces = ["lo"]', "mirror.interfaces\\[0\\]: not an interface name"),
        (f"interfaces = {[f'mon{n}' for n in range(17)]}", "mirror.interfaces: 17 interfaces; 16 at most"),
        ('dir = "here"', "mirror.dir: expected an absolute path"),
        ("files = 0", "mirror.files: expected a whole number"),
        ('port = "mon0"', "mirror.port: unknown key"),
    ],
)
def test_what_mirrors_refuse(line: str, why: str) -> None:
    with pytest.raises(SetupError, match=why):
        parse(with_key("mirror", line))


def test_several_adapters_and_both_families() -> None:
    config = parse(
        """
        [s1]
        enb_interface = ["enb0", "enb1"]
        sgw_interface = "sgw0"
        enb = ["10.0.0.0/24", "fd00::1"]
        [ue]
        app_interface = "apps0"
        app_address = ["192.168.50.1/24", "fd01::1/64"]
        app_gateway = ["192.168.50.254", "fd01::ff"]
        """
    )
    assert config.s1.interfaces == ("enb0", "enb1", "sgw0")
    assert config.s1.enb == (ip_network("10.0.0.0/24"), ip_network("fd00::1/128"))
    assert config.ue.app_address[1] == ip_interface("fd01::1/64")
    assert config.ue.app_gateway == (ip_address("192.168.50.254"), ip_address("fd01::ff"))


def test_shared_adapter() -> None:
    config = parse(SHARED.format(enb='["10.0.0.1"]', sgw='"10.0.0.2"'))
    assert config.s1.shared
    assert config.s1.interfaces == ("nic0",)


@pytest.mark.parametrize(
    ("enb", "sgw", "path"),
    [
        ("[]", '["10.0.0.2"]', "s1.enb: "),
        ('["10.0.0.2"]', "[]", "s1.sgw: "),
        ('["10.0.0.0/24"]', '["10.1.0.0/16", "10.0.0.2"]', "s1.sgw[1]: "),
        ('["10.0.0.2"]', '["10.0.0.0/8"]', "s1.sgw[0]: "),
    ],
)
def test_shared_adapter_needs_disjoint_sides(enb: str, sgw: str, path: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse(SHARED.format(enb=enb, sgw=sgw))
    assert str(caught.value).startswith(path)


def test_both_families_never_overlap() -> None:
    assert parse(SHARED.format(enb='["0.0.0.0/0"]', sgw='["::/0"]')).s1.shared


@pytest.mark.parametrize(
    ("table", "line", "message"),
    [
        ("s1", "colour = 1", "s1.colour: unknown key"),
        ("colour", "a = 1", "colour: unknown key"),
        ("agent", 'name = "LONGNAME"', "agent.name: expected 1 to 7 of"),
        ("agent", "name = 1", "agent.name: expected a string"),
        ("agent", "queue_base = 65535", "agent.queue_base: expected a whole number"),
        ("agent", "queue_base = true", "agent.queue_base: expected a whole number"),
        ("s1", 'enb = ["10.0.0.1", "x"]', "s1.enb[1]: expected an address or prefix"),
        ("s1", 'enb = ["10.0.0.1/8"]', "s1.enb[0]: expected an address or prefix without host bits"),
        ("s1", 'sgw = ["10.0.0.1", "10.0.0.1"]', "s1.sgw[1]: 10.0.0.1 is given twice"),
        ("s1", 'xdp = "fast"', "s1.xdp: expected auto or native or generic"),
        ("ue", 'ovs = "public"', "ue.ovs: expected private"),
        ("ue", "app_address = []", "ue.app_address: must not be empty"),
        ("ue", 'app_address = "192.168.50.1"', "ue.app_address: expected a host's ADDRESS/PREFIX"),
        ("ue", 'app_address = "192.168.50.0/24"', "ue.app_address: expected a host's ADDRESS/PREFIX"),
        ("ue", 'app_address = "192.168.50.255/24"', "ue.app_address: expected a host's ADDRESS/PREFIX"),
        ("ue", 'app_address = "x"', "ue.app_address: expected ADDRESS/PREFIX"),
        ("ue", 'app_address = "127.0.0.1/8"', "ue.app_address: expected a global unicast address"),
        ("ue", 'app_address = ["10.0.0.1/24", "10.0.1.1/24"]', "ue.app_address: at most one IPv4"),
        ("ue", 'app_gateway = "10.0.0.1"', "ue.app_gateway: 10.0.0.1 is not a neighbour"),
        ("ue", 'app_gateway = "192.168.50.1"', "ue.app_gateway: 192.168.50.1 is not a neighbour"),
        ("ue", 'app_gateway = "x"', "ue.app_gateway: expected an IP address"),
        ("pinger", 'target = "224.0.0.1"', "pinger.target: expected a global unicast address"),
        ("pinger", "target = []", "pinger.target: must not be empty"),
        ("pinger", "interval_s = 0", "pinger.interval_s: expected a number"),
        ("pinger", "interval_s = nan", "pinger.interval_s: expected a number"),
        ("pinger", "attempts = 0", "pinger.attempts: expected a whole number"),
        ("dns", 'resolvers = "video.example.com"', "dns.resolvers: expected an address or prefix"),
        ("dns", "least_hold_s = -1", "dns.least_hold_s: expected a number"),
        ("dns", "most_hold_s = 59.5", "dns.least_hold_s: 60 is more than dns.most_hold_s, 59.5"),
        ("dns", 'server = "bind"', "dns.server: expected off or unbound"),
        ("dns", 'listen = "192.168.50.53"', "dns.listen: dns.server is off"),
        ("dns", 'divert = "8.8.8.8"', "dns.divert: dns.server is off"),
        ("dns", 'server = "unbound"', "dns.listen: required, because dns.server is unbound"),
        ("dns", EDGE.replace("upstream", "#"), "dns.upstream: required, because dns.server is unbound"),
        (
            "dns",
            EDGE.replace("50.53", "50.1"),
            "dns.listen: 192.168.50.1 is not another address in the network",
        ),
        (
            "dns",
            EDGE.replace("50.53", "51.53"),
            "dns.listen: 192.168.51.53 is not another address in the network",
        ),
        ("dns", f'{EDGE}\ndivert = ["8.8.8.8", "2001:db8::8"]', "dns.divert[1]: 2001:db8::8 is of a family"),
        ("dns", "idle_s = inf", "dns.idle_s: expected a number"),
        ("tunnels", "idle_timeout_s = 0", "tunnels.idle_timeout_s: expected a number"),
        ("tunnels", "max = 0", "tunnels.max: expected a whole number"),
        ("api", 'listen = ["http://10.0.0.1:80"]', "api.listen[0]: 10.0.0.1 is not a loopback address"),
        ("api", 'listen = "http://example.org:80"', "api.listen: example.org is not a loopback address"),
        ("api", 'listen = "http://127.0.0.1"', "api.listen: expected unix:/path or http://"),
        ("api", 'listen = "http://127.0.0.1:99999"', "api.listen: expected unix:/path or http://"),
        ("api", 'listen = "https://127.0.0.1:80"', "api.listen: expected unix:/path or http://"),
        ("api", 'listen = "unix:relative"', "api.listen: expected unix:/path or http://"),
        ("api", "listen = []", "api.listen: must not be empty"),
        ("state", 'dir = "relative"', "state.dir: expected an absolute path"),
        ("state", 'run_dir = "/a\\u0000"', "state.run_dir: expected an absolute path"),
        ("log", 'level = "loud"', "log.level: expected debug or"),
        ("log", 'format = "xml"', "log.format: expected text or json"),
    ],
)
def test_refusals_name_the_path(table: str, line: str, message: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse(with_key(table, line))
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("enb", "sgw", "app", "message"),
    [
        ('"enb0"', '["sgw0", "enb0"]', '"apps0"', "s1.sgw_interface[1]: enb0 is on the eNB side too"),
        ('["a", "b"]', '["a", "b"]', '"apps0"', "s1.sgw_interface[0]: a is on the eNB side too"),
        ('["a", "a"]', '"sgw0"', '"apps0"', "s1.enb_interface[1]: a is given twice"),
        ('"enb0"', '"sgw0"', '"sgw0"', "ue.app_interface: sgw0 is an S1 adapter"),
        ('"a234567890123456"', '"sgw0"', '"apps0"', "s1.enb_interface: expected an interface name"),
        ('"a b"', '"sgw0"', '"apps0"', "s1.enb_interface: expected an interface name"),
        ('"lo"', '"sgw0"', '"apps0"', "s1.enb_interface: not an interface name"),
        ('"enb0"', "[]", '"apps0"', "s1.sgw_interface: must not be empty"),
        ('"br-s1"', '"sgw0"', '"apps0"', "s1.enb_interface: br-s1 is a device of the TOF"),
        ('"enb0"', '"sgw0"', '"ue0"', "ue.app_interface: ue0 is a device of the TOF"),
    ],
)
def test_adapters(enb: str, sgw: str, app: str, message: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse(f"[s1]\nenb_interface = {enb}\nsgw_interface = {sgw}\n[ue]\napp_interface = {app}\n")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s1.enb_interface: missing"),
        ("s1 = 3", "s1: expected a table"),
        ("[s1", "not TOML: "),
        ("a = " + "[" * 5000, "not TOML: "),
    ],
)
def test_broken_documents(text: str, message: str) -> None:
    with pytest.raises(SetupError) as caught:
        parse(text)
    assert str(caught.value).startswith(message)


def test_load_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"absent\.toml: No such file"):
        load(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SetupError, match=r"bad\.toml: not a UTF-8 text file"):
        load(tmp_path / "bad.toml")
    (tmp_path / "wrong.toml").write_text("[s1]\n")
    with pytest.raises(SetupError, match=r"wrong\.toml: s1\.enb_interface: missing"):
        load(tmp_path / "wrong.toml")


def test_a_side_has_eight_adapters_at_most() -> None:
    names = ", ".join(f'"enb{n}"' for n in range(9))
    with pytest.raises(SetupError, match=r"s1\.enb_interface: 9 adapters; a side takes 8 at most"):
        parse(f'[s1]\nenb_interface = [{names}]\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n')


def test_localhost_and_ipv6_loopback_are_fine() -> None:
    config = parse(with_key("api", 'listen = ["http://localhost:0", "http://[::1]:8080"]'))
    assert config.api.listen == (TcpListen("localhost", 0), TcpListen("::1", 8080))


def test_names() -> None:
    assert names_of("default").br_s1 == "br-s1"
    assert names_of("edge-01").br_s1 == "br-s1.edge-01"
    assert names_of("default").devices.isdisjoint(names_of("edge-01").devices)
    assert all(len(name) <= 15 for name in names_of("edge-01").devices)
    assert len(names_of("default").devices) == 24


def parses_or_refuses(text: str) -> bool:
    try:
        return isinstance(parse(text), Config)
    except SetupError:
        return True


@given(st.text())
def test_any_text_parses_or_is_refused(text: str) -> None:
    assert parses_or_refuses(text)


_odd = ['""', '"::1"', '"10.0.0.1/33"', '"http://[:1"', '"unix:/"', '["a", 1]', "{a = 1}", "[]", "nan", "inf"]
_values = st.one_of(
    st.integers().map(str),
    st.floats(allow_infinity=False, allow_nan=False).map(lambda number: repr(float(number))),
    st.sampled_from([*_odd, "true"]),
    st.text("abc:/.0123456789", max_size=12).map(lambda text: f'"{text}"'),
)
_keys = st.sampled_from(
    ["agent", "agent.name", "s1.enb", "s1.sgw", "s1.xdp", "ue.ovs", "ue.app_address", "ue.app_gateway"],
) | st.sampled_from(
    ["pinger.target", "pinger.interval_s", "tunnels.max", "api.listen", "state.dir", "log", "x"]
)


@given(st.dictionaries(_keys, _values, max_size=4))
def test_any_values_parse_or_are_refused(settings: dict[str, str]) -> None:
    base = 's1.enb_interface = "a"\ns1.sgw_interface = "a"\nue.app_interface = "b"\n'
    assert parses_or_refuses(base + "".join(f"{key} = {value}\n" for key, value in settings.items()))
