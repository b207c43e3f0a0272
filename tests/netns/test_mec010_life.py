"""ETSI MEC 010-2 from an orchestrator to a UE: a real TOF, real sandboxes, a real subscriber, ``kill -9``."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from gtp_apps import ue_kernel
from gtp_packets import Bearer, new_bearer
from gtp_peers import Setting, Tof, running_tof, until
from test_apps_killed import MOST, ask, died, start_dying
from test_vim_apps import SERVICE, WEB, fetched, left

pytestmark = pytest.mark.netns

ROOT = "/app_lcm/v1"
HOST = {"selectedMECHostInfo": [{"hostId": {"name": "edge-1"}}]}
TERMINATE = {"terminationType": "GRACEFUL", "gracefulTerminationTimeout": 5}


@pytest.fixture(scope="module")
def tof() -> Iterator[Tof]:
    with running_tof(Setting()) as running:
        yield running


@pytest.fixture
def told(tof: Tof) -> Iterator[tuple[str, list[Any]]]:
    """A subscriber on the TOF's own host: its address, and what it has been told."""
    got: list[Any] = []

    class Subscriber(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with tof.netns["tof"].entered():
        server = ThreadingHTTPServer(("127.0.0.1", 0), Subscriber)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/told", got
    server.shutdown()
    thread.join()
    server.server_close()


def create(tof: Tof) -> str:
    """The address of a new instance."""
    service = {"name": "web", "serviceIP": SERVICE, "protocol": "tcp", "ports": [80], "applicationPort": 8080}
    body = {
        "appProvider": "example",
        "appName": "web",
        "appSoftVersion": "1",
        "appDVersion": "1.0",
        "app": {"command": WEB, "services": [service]},
    }
    assert tof.call("PUT", f"{ROOT}/app_descriptors/web", body)[0] in (200, 201)
    status, instance = tof.call("POST", f"{ROOT}/app_instances", {"appDId": "web"})
    assert status == 201, instance
    return f"{ROOT}/app_instances/{instance['id']}"


def done(tof: Tof, place: str, task: str, body: object) -> None:
    status, problem = tof.call("POST", f"{place}/{task}", body)
    assert status == 202, problem
    finished(tof)


def finished(tof: Tof) -> None:
    """The last operation is completed."""

    def over() -> bool:
        last = tof.get(f"{ROOT}/app_lcm_op_occs")[-1]
        assert last["operationState"] != "FAILED", last
        return bool(last["operationState"] == "COMPLETED")

    until("the operation is completed", over, 20)


def state(tof: Tof, place: str) -> str:
    instance = tof.get(place)
    return str(instance.get("instantiatedAppState", {}).get("operationalState", "NOT_INSTANTIATED"))


def refused(tof: Tof, bearer: Bearer) -> bool:
    """Nothing answers at the edge: what the UE sends goes to the core, which is silent."""
    with ue_kernel(tof, bearer):
        return tof.netns["ran"].run("curl", "-s", "-m", "1", f"http://{SERVICE}/", check=False) == ""


def test_an_orchestrator_has_an_app_and_a_ue_reaches_it(tof: Tof, told: tuple[str, list[Any]]) -> None:
    callback, got = told
    bearer = new_bearer()
    tof.attach(bearer)
    for kind in ("AppInstanceStateChange", "AppLcmOpOccStateChange"):
        body = {"subscriptionType": kind, "callbackUri": callback}
        status, answer = tof.call("POST", f"{ROOT}/subscriptions?subscriptionType={kind}", body)
        assert status == 201, answer
    place = create(tof)
    assert state(tof, place) == "NOT_INSTANTIATED"
    done(tof, place, "instantiate", HOST)
    assert state(tof, place) == "STARTED"
    assert [one["name"] for one in tof.get("/apps")] == [place.rpartition("/")[2]], "one life cycle"
    assert "Directory listing" in fetched(tof, bearer)
    done(tof, place, "operate", {"changeStateTo": "STOPPED"})
    assert (state(tof, place), left(tof)) == ("STOPPED", [])
    assert refused(tof, bearer)
    done(tof, place, "operate", {"changeStateTo": "STARTED"})
    assert "Directory listing" in fetched(tof, bearer)
    assert tof.call("DELETE", place)[0] == 409
    done(tof, place, "terminate", TERMINATE)
    assert (state(tof, place), left(tof)) == ("NOT_INSTANTIATED", [])
    assert tof.call("DELETE", place)[0] == 204
    assert tof.call("GET", place)[0] == 404
    until("everything was told", lambda: len(got) == 4 + 4 * 3)
    instances = [one["notificationType"] for one in got if "appDId" in one]
    assert instances == ["STARTED", "STOPPED", "STARTED", "NOT_INSTANTIATED"]
    operations = [one["notificationType"] for one in got if "appLcmOpOccId" in one]
    assert operations == ["STARTING", "PROCESSING", "COMPLETED"] * 4


@pytest.mark.parametrize("at", ["put_app", "wire", "release", "provision"])
def test_an_agent_killed_while_it_instantiates(tof: Tof, at: str) -> None:
    """What has been kept as begun is completed by the next agent, the core having heard of it or not."""
    place = create(tof)
    tof.signal(signal.SIGTERM)
    start_dying(tof, at)
    ask(tof, "POST", f"{place}/instantiate", HOST)
    assert died(tof)
    tof.start()
    finished(tof)
    assert state(tof, place) == "STARTED"
    done(tof, place, "terminate", TERMINATE)
    assert tof.call("DELETE", place)[0] == 204
    assert left(tof) == []


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_an_agent_killed_at_any_call_of_an_instantiation(tof: Tof) -> None:
    """What it had kept is completed; what it had not was not answered either, and nothing of it is there."""
    for at in range(1, MOST):
        place = create(tof)
        tof.signal(signal.SIGTERM)
        calls = start_dying(tof, at)
        ask(tof, "POST", f"{place}/instantiate", HOST)
        dead, seen = died(tof), calls.read_text().split()
        if not dead:
            tof.signal(signal.SIGTERM)
        tof.start()
        if at == 1:
            assert seen == ["change_lcm"]
            known = [one["_links"]["appInstance"]["href"] for one in tof.get(f"{ROOT}/app_lcm_op_occs")]
            assert not any(href.endswith(place) for href in known)
            assert state(tof, place) == "NOT_INSTANTIATED"
        else:
            finished(tof)
            assert state(tof, place) == "STARTED", seen
            done(tof, place, "terminate", TERMINATE)
        assert tof.call("DELETE", place)[0] == 204
        assert left(tof) == []
        if not dead:
            assert {"put_app", "wire", "plug", "release", "provision"} <= {*seen}
            assert seen.count("change_lcm") == 3
            return
    pytest.fail(f"more than {MOST} calls")


@pytest.mark.parametrize("at", ["withdraw", "end", "delete_app"])
def test_an_agent_killed_while_it_terminates(tof: Tof, at: str) -> None:
    place = create(tof)
    tof.signal(signal.SIGTERM)
    start_dying(tof, at)
    done(tof, place, "instantiate", HOST)
    with contextlib.suppress(OSError):
        tof.call("POST", f"{place}/terminate", TERMINATE)
    assert died(tof)
    tof.start()
    finished(tof)
    assert (state(tof, place), left(tof)) == ("NOT_INSTANTIATED", [])
    assert tof.call("DELETE", place)[0] == 204
