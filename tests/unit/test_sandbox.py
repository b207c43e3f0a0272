"""Sandboxes as values: names, addresses, the command that isolates."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tof.agent.sandbox import (
    Isolated,
    Process,
    Root,
    User,
    digest_of,
    free_addresses,
    isolated,
    parse_sandbox,
    sandbox_body,
    sandbox_of,
)

V4, V6 = ip_address("192.168.50.128"), ip_address("fd00:50::80")
NETWORK = ip_network("192.168.50.0/24")


def test_names_follow_from_key_and_place() -> None:
    one, same = sandbox_of("k", "web", place="/run/tof"), sandbox_of("k", "web", place="/run/tof")
    assert one == same
    assert one.namespace.startswith("tof-web-")
    assert len(one.device) <= 14, "with a letter for the other end it is a device's name"
    assert one.mac[0] & 3 == 2, "one adapter's, locally given"
    others = [sandbox_of("k", "web", place="/run/other"), sandbox_of("l", "web", place="/run/tof")]
    assert len({one.device, *(other.device for other in others)}) == 3


@pytest.mark.parametrize("process", [None, Process(7, 123, "boot")])
def test_what_is_written_down_is_read_again(process: Process | None) -> None:
    sandbox = replace(
        sandbox_of("k", "web", "digest"),
        addresses=(V4, V6), lengths=(24, 64), gateways=(ip_address("192.168.50.1"),), groups=("g",),
    ).with_process(process, running=process is not None)  # fmt: skip
    assert parse_sandbox(json.loads(json.dumps(sandbox_body(sandbox)))) == sandbox


def test_free_addresses() -> None:
    pool, networks = (ip_network("192.168.50.252/30"), ip_network("fd00:50::/126")), (NETWORK,)
    first = ip_address("192.168.50.252")
    assert free_addresses(pool, networks, ()) == (first, ip_address("fd00:50::"))
    assert free_addresses(pool, networks, {first}) == (first + 1, ip_address("fd00:50::"))
    assert free_addresses(pool, networks, {first, first + 1, first + 2}) is None, "the last is the broadcast"
    assert free_addresses((), networks, ()) == ()


def test_digests_tell_descriptions_apart() -> None:
    assert digest_of("a", 1) == digest_of("a", 1) != digest_of("a", 2)


ROOT = Root((("/usr", "/usr"),), (("usr/bin", "/bin"),))


def run(*, own_users: bool) -> Isolated:
    sandbox = replace(sandbox_of("k", "web"), addresses=(V4, V6), lengths=(24, 64))
    return isolated(sandbox, ROOT, User(65534, 65534), ("/bin/web",), (("A", "b"),), own_users=own_users)


def test_rights_are_given_up_first_where_there_are_user_namespaces() -> None:
    found = run(own_users=True)
    assert found.argv[0] == "setpriv"
    assert found.argv[-1] == "/bin/web"
    assert "--unshare-user" in found.options
    assert "--no-new-privs" in found.argv


def test_rights_are_given_up_last_where_there_are_none() -> None:
    found = run(own_users=False)
    assert found.argv[0] == "bwrap"
    assert found.argv.index("setpriv") < found.argv.index("--reuid=65534") < found.argv.index("/bin/web")
    assert "--unshare-user" not in found.options


@pytest.mark.parametrize("own_users", [True, False])
def test_what_an_app_sees(own_users: bool) -> None:
    options = " ".join(run(own_users=own_users).options)
    assert "--ro-bind /usr /usr" in options
    assert "--symlink usr/bin /bin" in options
    assert "--setenv A b" in options
    assert f"--setenv TOF_APP_ADDRESS {V4} {V6}" in options
    assert "--cap-drop ALL" in options
    for apart in ("pid", "ipc", "uts"):
        assert f"--unshare-{apart}" in options
    assert "--bind " not in options.replace("--ro-bind ", ""), "nothing of the host is writable"
    assert "b" not in run(own_users=own_users).argv, "the environment is in no argument that others see"
