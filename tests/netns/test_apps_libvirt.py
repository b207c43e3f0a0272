"""ME Apps as virtual machines, from the API to a UE: a real TOF, a real libvirtd, QEMU."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from gtp_apps import ue_kernel
from gtp_packets import Bearer, new_bearer
from gtp_peers import Setting, Tof, running_tof, until
from libvirt_host import Libvirtd, guest_images, private_libvirtd, usable
from test_apps_killed import ask, died, start_dying

pytestmark = pytest.mark.netns

SERVICE = "203.0.113.10"
HELLO = "hello from web\n"
BOOT_S = 60

_VIM = """\
[vim.kvm]
backend = "libvirt"
uri = "qemu:///system?socket={{dir}}/libvirt/libvirt-sock"
hypervisor = "qemu"
pool = ["192.168.50.64/27", "fd00:50::40/122"]
images = "{images}"
"""


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Tof, Libvirtd]]:
    usable()
    setting = Setting(more=_VIM.format(images=guest_images()))
    with running_tof(setting) as tof, private_libvirtd(tof.netns["tof"], tof.dir) as libvirtd:
        yield tof, libvirtd


@pytest.fixture
def tof(both: tuple[Tof, Libvirtd]) -> Iterator[Tof]:
    tof, libvirtd = both
    tof.drain()
    yield tof
    for one in tof.get("/apps"):
        tof.call("DELETE", f"/apps/{one['name']}?wait=30")
    assert left(tof, libvirtd) == []


@pytest.fixture
def libvirtd(both: tuple[Tof, Libvirtd]) -> Libvirtd:
    return both[1]


def left(tof: Tof, libvirtd: Libvirtd) -> list[str]:
    """Everything of apps that is still there."""
    links = tof.netns["tof"].run("ip", "-br", "link").split("\n")
    found = [line for line in links if line.startswith(("tofap-", "tofp"))]
    found += [str(path) for path in (tof.dir / "run" / "vim").glob("*/*")]
    return found + [f"service {one['name']}" for one in tof.get("/service")] + libvirtd.left()


def web(**more: Any) -> dict[str, Any]:
    service = {"name": "web", "serviceIP": SERVICE, "protocol": "tcp", "ports": [80]}
    return {"name": "web", "vim": "kvm", "image": "guest", "services": [service], **more}


def create(tof: Tof, **more: Any) -> dict[str, Any]:
    status, view = tof.call("POST", "/apps", web(**more))
    assert status == 202, view
    until("it is ready or has failed", lambda: state(tof) in ("ready", "failed"), BOOT_S)
    view = tof.get("/apps/web")
    assert view["state"] == "ready", view["error"]
    return dict(view)


def state(tof: Tof) -> str:
    return str(tof.get("/apps/web").get("state"))


def fetched(tof: Tof, bearer: Bearer) -> str:
    with ue_kernel(tof, bearer):
        return tof.netns["ran"].run("curl", "-s", "-m", "10", f"http://{SERVICE}/", check=False)


def test_a_ue_reaches_a_virtual_machine_until_it_is_deleted(tof: Tof, libvirtd: Libvirtd) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    view = create(tof)
    print(view["timings"])
    assert {"build.define", "build.start", "build.port", "build.release", "probe"} <= {*view["timings"]}
    assert view["addresses"] == ["192.168.50.64", "fd00:50::40"]
    assert fetched(tof, bearer) == HELLO
    assert tof.call("POST", "/apps?wait=5", web())[0] == 201, "the same again is the same app"
    assert tof.call("DELETE", "/apps/web?wait=30") == (200, "")
    assert left(tof, libvirtd) == []


def test_much_data_comes_whole(tof: Tof) -> None:
    """Packets of a guest are complete and fit into the tunnel: nothing behind br-ue finishes or cuts them."""
    script = (
        "mkdir /tmp/w; yes 0123456789abcde | head -c 262144 >/tmp/w/index.html; exec httpd -f -p 80 -h /tmp/w"
    )
    create(tof, command=["sh", "-c", script])
    bearer = new_bearer()
    tof.attach(bearer)
    assert fetched(tof, bearer) == "0123456789abcde\n" * 16384


def test_a_machine_that_crashes_comes_again(tof: Tof, libvirtd: Libvirtd) -> None:
    create(tof)
    os.kill(*libvirtd.machines(), signal.SIGKILL)
    until("its end is noticed", lambda: state(tof) != "ready", 20)
    until("it is back", lambda: state(tof) == "ready", BOOT_S)
    assert tof.get("/apps/web")["restarts"] == 1
    bearer = new_bearer()
    tof.attach(bearer)
    assert fetched(tof, bearer) == HELLO


def test_machines_go_on_without_agent_and_without_libvirtd(tof: Tof, libvirtd: Libvirtd) -> None:
    bearer = new_bearer()
    tof.attach(bearer)
    before = create(tof)
    libvirtd.kill()
    tof.signal(signal.SIGKILL)
    assert fetched(tof, bearer) == HELLO, "without both"
    tof.start()
    assert fetched(tof, bearer) == HELLO, "without libvirtd"
    libvirtd.start()
    until("it is taken over", lambda: state(tof) == "ready", BOOT_S)
    after = tof.get("/apps/web")
    assert (after["addresses"], after["restarts"]) == (before["addresses"], before["restarts"])
    assert fetched(tof, bearer) == HELLO


@pytest.mark.parametrize(
    ("body", "step", "said"),
    [
        ({"image": "none"}, "build", "there is no image none"),
        ({"networks": ["apps", "platform"]}, "build", "there is no network platform"),
        ({"groups": ["unheard-of"]}, "build", "there is no security group called unheard-of"),
        ({"command": ["sh", "-c", "echo giving up; exit 3"], "restart": "never"}, "run", "giving up"),
    ],
)
def test_what_fails_says_where_and_why(
    tof: Tof, libvirtd: Libvirtd, body: dict[str, Any], step: str, said: str
) -> None:
    assert tof.call("POST", "/apps", web(**body))[0] == 202
    until("it has failed", lambda: state(tof) == "failed", BOOT_S)
    error = tof.get("/apps/web")["error"]
    assert error["step"] == step, error
    assert said in error["vim_message"]
    assert error["hint"]
    assert left(tof, libvirtd) == []


SOME, OTHERS = ("start", "undefine"), ("put_app", "define", "hush", "plug", "release", "provision")
LATER = ("withdraw", "end", "unplug", "clean", "delete_app")


@pytest.mark.parametrize("at", [*SOME[:1], *(pytest.param(at, marks=pytest.mark.heavy) for at in OTHERS)])
def test_an_agent_killed_at_a_call_of_a_creation(tof: Tof, libvirtd: Libvirtd, at: str) -> None:
    tof.signal(signal.SIGTERM)
    start_dying(tof, at)
    ask(tof, "POST", "/apps?wait=60", web())
    assert died(tof)
    tof.start()
    if tof.call("GET", "/apps/web")[0] == 200:
        until("it is completed", lambda: state(tof) == "ready", BOOT_S)
        assert len(libvirtd.machines()) == 1
        assert tof.call("DELETE", "/apps/web?wait=30")[0] == 200
    until("nothing is left", lambda: left(tof, libvirtd) == [], 30)


@pytest.mark.parametrize("at", [*SOME[1:], *(pytest.param(at, marks=pytest.mark.heavy) for at in LATER)])
def test_an_agent_killed_at_a_call_of_a_removal(tof: Tof, libvirtd: Libvirtd, at: str) -> None:
    tof.signal(signal.SIGTERM)
    start_dying(tof, at)
    create(tof)
    ask(tof, "DELETE", "/apps/web?wait=30")
    assert died(tof)
    tof.start()
    until("it is gone", lambda: tof.call("GET", "/apps/web")[0] == 404, 30)
    until("nothing is left", lambda: left(tof, libvirtd) == [], 30)


def test_an_orphan_is_removed_and_down_leaves_nothing(tof: Tof, libvirtd: Libvirtd) -> None:
    """Last, for it takes the TOF down."""
    create(tof)
    tof.signal(signal.SIGTERM)
    for path in (tof.dir / "state").glob("services.db*"):
        path.unlink()
    tof.start()
    until("the orphan is gone", lambda: libvirtd.domains() == [], 30)
    create(tof)
    assert "removed the app web" in tof.tof("down")
    assert tof.agent is not None
    tof.agent.wait()
    assert libvirtd.left() == []
    tof.start()
