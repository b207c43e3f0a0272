"""What Nomad's answers mean, of several generations, and what an app is as a job."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from tof.agent.app import Flavour
from tof.vim.errors import BackendFault, NoCapacity, QuotaExceeded, Rejected
from tof.vim.interface import AppSpec, InstanceState
from tof.vim.nomad_answers import (
    addresses_of,
    ended,
    fault_of,
    fresh,
    misplaced,
    node_address,
    state_of,
    stub_state,
)
from tof.vim.nomad_job import NomadPolicy, job_of

FOUR, SIX = ip_address("10.0.0.7"), ip_address("2001:db8::7")
SPEC = AppSpec("web", command=("/bin/web", "-p", "80"), environment=(("LANG", "C"),))


@pytest.mark.parametrize(
    ("allocation", "addresses"),
    [
        ({"Resources": {"Networks": [{"IP": "10.0.0.7"}]}}, (FOUR,)),
        ({"Resources": {"Networks": None}, "TaskResources": {"app": {"Networks": [{"IP": "10.0.0.7"}]}}}, (FOUR,)),
        ({"AllocatedResources": {"Tasks": {"app": {"Networks": [{"IP": "10.0.0.7"}]}}, "Shared": {}}}, (FOUR,)),
        ({"AllocatedResources": {"Tasks": None, "Shared": {"Networks": [{"IP": "10.0.0.7"}]}}}, (FOUR,)),
        (
            {"NetworkStatus": {"Address": "2001:db8::7"}, "Resources": {"Networks": [{"IP": "10.0.0.7"}]}},
            (FOUR, SIX),
        ),
        ({"NetworkStatus": {"Address": "10.0.0.7"}, "Resources": {"Networks": [{"IP": "10.9.9.9"}]}}, (FOUR,)),
        ({"NetworkStatus": None, "AllocatedResources": None, "TaskResources": None, "Resources": None}, ()),
        ({"Resources": {"Networks": [{"IP": ""}]}}, ()),
    ],
)  # fmt: skip
def test_where_allocations_have_addresses(allocation: Any, addresses: Any) -> None:
    assert addresses_of(allocation) == addresses


def test_the_address_of_a_node() -> None:
    assert node_address({"Attributes": {"unique.network.ip-address": "10.0.0.7"}}) == (FOUR,)
    assert node_address({"Attributes": None}) == ()


def test_what_an_earlier_job_left_is_not_fresh() -> None:
    rows = [{"CreateIndex": at} for at in (3, 12, 11, 10)]
    assert [row["CreateIndex"] for row in fresh(rows, 11)] == [12, 11]


@pytest.mark.parametrize(
    ("client", "desired", "state", "over"),
    [
        ("pending", "run", InstanceState.BUILD, False),
        ("running", "run", InstanceState.ACTIVE, False),
        ("running", "stop", InstanceState.ERROR, False),
        ("complete", "run", InstanceState.ERROR, True),
        ("failed", "run", InstanceState.ERROR, True),
        ("lost", "stop", InstanceState.ERROR, True),
        ("unknown", "run", InstanceState.ERROR, False),
    ],
)
def test_states(client: str, desired: str, state: InstanceState, over: bool) -> None:
    allocation = {"ClientStatus": client, "DesiredStatus": desired}
    assert (state_of(allocation), ended(allocation)) == (state, over)


def test_states_of_jobs_in_a_list() -> None:
    assert stub_state({"Status": "running", "Stop": False}) is InstanceState.ACTIVE
    assert stub_state({"Status": "pending"}) is InstanceState.BUILD
    assert stub_state({"Status": "dead"}) is InstanceState.ERROR
    assert stub_state({"Status": "running", "Stop": True}) is InstanceState.ERROR
    summary = {"Summary": {"app": {"Running": 1, "Lost": 1}}}
    assert stub_state({"Status": "running", "JobSummary": summary}) is InstanceState.ERROR
    assert stub_state({"Status": "running", "JobSummary": None}) is InstanceState.ACTIVE


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([("Received", ""), ("Driver Failure", "none"), ("Not Restarting", "n"), ("Alloc Unhealthy", "u")], "none"),
        ([("Started", "x"), ("Terminated", "Exit Code: 1"), ("Not Restarting", "no")], "Exit Code: 1"),
        ([("Killed", "")], "Killed"),
        ([("Received", "x")], "the allocation is failed"),
        ([], "the allocation is failed"),
    ],
)  # fmt: skip
def test_the_event_that_says_why(events: list[tuple[str, str]], said: str) -> None:
    told = [{"Type": kind, "DisplayMessage": text} for kind, text in events]
    assert fault_of({"TaskStates": {"app": {"Events": told}}, "ClientStatus": "failed"}) == said


def test_without_events() -> None:
    assert (
        fault_of({"TaskStates": None, "ClientStatus": "lost", "ClientDescription": "node down"})
        == "node down"
    )


def metric(**more: Any) -> dict[str, Any]:
    return {"Status": "complete", "FailedTGAllocs": {"app": {"NodesEvaluated": 2, **more}}}


def test_why_a_job_is_not_placed() -> None:
    for said, kind, words in (
        (metric(ConstraintFiltered={"missing drivers": 2}), NoCapacity, "2 looked at, missing drivers (2)"),
        (
            metric(DimensionExhausted={"memory": 1}, ClassExhausted={"big": 1}),
            NoCapacity,
            "memory (1), big (1)",
        ),
        (metric(NodesAvailable={"dc1": 0, "dc2": 3}), NoCapacity, "none in dc1"),
        (metric(QuotaExhausted=["cpu exhausted"]), QuotaExceeded, "quota: cpu exhausted"),
        (
            {"Status": "failed", "StatusDescription": "maximum attempts reached (5)"},
            BackendFault,
            "maximum attempts",
        ),
        ({"Status": "canceled", "FailedTGAllocs": None}, BackendFault, "canceled"),
    ):
        error = misplaced([said])
        assert type(error) is kind
        assert words in error.message
        assert error.remedy
    assert misplaced([{"Status": "pending"}, {"Status": "complete", "FailedTGAllocs": None}]) is None


def test_a_job() -> None:
    job = job_of(SPEC, "tof.lab.default.web", "d1", NomadPolicy(("dc1", "dc2"), driver="raw_exec"))
    assert (job["ID"], job["Type"], job["Datacenters"]) == ("tof.lab.default.web", "batch", ["dc1", "dc2"])
    assert job["Meta"] == {"tof-key": "tof.lab.default.web", "tof-digest": "d1"}
    assert "Region" not in job
    (group,) = job["TaskGroups"]
    assert group["RestartPolicy"]["Attempts"] == group["ReschedulePolicy"]["Attempts"] == 0
    assert "Networks" not in group
    (task,) = group["Tasks"]
    assert task["Config"] == {"command": "/bin/web", "args": ["-p", "80"]}
    assert task["Env"] == {"LANG": "C"}
    assert task["Resources"] == {"CPU": 100, "MemoryMB": 128, "Networks": [{"MBits": 1}]}


def test_a_job_of_an_image_on_a_network_of_its_own() -> None:
    spec = replace(SPEC, image="web.v1", command=(), flavour=Flavour(0.5, 4))
    policy = NomadPolicy(region="eu", namespace="mec", driver="docker", network="cni/apps", mhz_per_cpu=2400)
    job = job_of(spec, "k", "d", policy)
    assert (job["Region"], job["Namespace"]) == ("eu", "mec")
    (group,) = job["TaskGroups"]
    assert group["Networks"] == [{"Mode": "cni/apps"}]
    (task,) = group["Tasks"]
    assert task["Config"] == {"image": "web.v1"}
    assert task["Resources"] == {"CPU": 1200, "MemoryMB": 10}, "not less than Nomad takes"
    assert job_of(replace(spec, command=("-v",)), "k", "d", policy)["TaskGroups"][0]["Tasks"][0]["Config"][
        "args"
    ] == ["-v"]


@pytest.mark.parametrize(
    ("driver", "spec"),
    [("exec", replace(SPEC, image="x")), ("exec", replace(SPEC, command=())), ("docker", SPEC)],
)
def test_what_a_driver_does_not_take(driver: str, spec: AppSpec) -> None:
    with pytest.raises(Rejected):
        job_of(spec, "k", "d", NomadPolicy(driver=driver))
