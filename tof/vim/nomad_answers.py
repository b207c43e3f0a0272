"""What Nomad's evaluations and allocations say, of 0.8 as of 1.0; no input or output."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Final

from tof.model import IpAddress
from tof.vim.errors import BackendFault, NoCapacity, QuotaExceeded, VimError
from tof.vim.interface import InstanceState

Said = Mapping[str, Any]

OVER: Final = ("complete", "failed", "lost")
ROUTINE: Final = frozenset(
    {
        "Received",
        "Task Setup",
        "Started",
        "Driver",
        "Downloading Artifacts",
        "Not Restarting",
        "Alloc Unhealthy",
    }
)
"""Types of events that do not say why a task failed, though they come after the one that does."""


def fresh(entries: Iterable[Said], begun: int) -> list[Said]:
    """Those of the job that began at this index, newest first: what an earlier job of that ID had stays listed.

    The index of a job's own evaluation is the job's (1.0) or the next (0.8).
    """
    ours = [each for each in entries if each["CreateIndex"] >= begun]
    return sorted(ours, key=lambda each: int(each["CreateIndex"]), reverse=True)


def misplaced(evaluations: Sequence[Said]) -> VimError | None:
    """Why the job cannot be placed; None if it can be, or that is not known yet."""
    for each in evaluations:
        for group, metric in (each.get("FailedTGAllocs") or {}).items():
            message = f"scheduling: no node for {group}: {_metric(metric)}"
            if metric.get("QuotaExhausted"):
                return QuotaExceeded(message)
            return NoCapacity(message, "see which nodes have the driver, and room; or ask for less")
        if each["Status"] in ("failed", "canceled"):
            return BackendFault(f"scheduling: {each.get('StatusDescription') or each['Status']}")
    return None


def state_of(allocation: Said) -> InstanceState:
    """What an allocation's states mean."""
    client = allocation["ClientStatus"]
    if client == "running" and allocation.get("DesiredStatus", "run") == "run":
        return InstanceState.ACTIVE
    return InstanceState.BUILD if client == "pending" else InstanceState.ERROR


def ended(allocation: Said) -> bool:
    """Whether nothing of it runs any more."""
    return allocation["ClientStatus"] in OVER


def moved(allocations: Sequence[Said]) -> bool:
    """Whether Nomad replaced a job's allocation, whose address is another one now."""
    return len(allocations) > 1


def stub_state(job: Said) -> InstanceState:
    """What a job's status in a list means; one that lost its allocation runs elsewhere."""
    summary = (job.get("JobSummary") or {}).get("Summary") or {}
    if job.get("Stop") or any(group.get("Lost") for group in summary.values()):
        return InstanceState.ERROR
    states = {"running": InstanceState.ACTIVE, "pending": InstanceState.BUILD}
    return states.get(job["Status"], InstanceState.ERROR)


def fault_of(allocation: Said) -> str:
    """Why it has ended: the last event that says so, not the last one."""
    told = [
        event for task in (allocation.get("TaskStates") or {}).values() for event in task.get("Events") or ()
    ]
    for event in reversed(told):
        if event.get("Type") not in ROUTINE:
            words = (
                "DisplayMessage",
                "DriverError",
                "SetupError",
                "ValidationError",
                "DownloadError",
                "Message",
            )
            said = next(filter(None, (event.get(word) for word in words)), event.get("Type"))
            return str(said)
    return str(allocation.get("ClientDescription") or f"the allocation is {allocation['ClientStatus']}")


def addresses_of(allocation: Said) -> tuple[IpAddress, ...]:
    """Its addresses, at most one a family."""
    by_version: dict[int, IpAddress] = {}
    for text in _places(allocation):
        if text:
            address = ip_address(text)
            by_version.setdefault(address.version, address)
    return tuple(by_version[version] for version in sorted(by_version))


def node_address(node: Said) -> tuple[IpAddress, ...]:
    """The address of a node, which a task without a network of its own has."""
    text = (node.get("Attributes") or {}).get("unique.network.ip-address")
    return (ip_address(text),) if text else ()


def _places(allocation: Said) -> Iterator[str | None]:
    """Where allocations of the several generations have addresses, the most particular first."""
    yield (allocation.get("NetworkStatus") or {}).get("Address")
    allocated = allocation.get("AllocatedResources") or {}
    holders = [allocated.get("Shared"), *(allocated.get("Tasks") or {}).values()]
    holders += [*(allocation.get("TaskResources") or {}).values(), allocation.get("Resources")]
    for holder in holders:
        for network in (holder or {}).get("Networks") or ():
            yield network.get("IP")


def _metric(metric: Said) -> str:
    """Why nodes were not taken, in Nomad's words."""
    said = [f"{metric.get('NodesEvaluated') or 0} looked at"]
    for name in ("ConstraintFiltered", "ClassFiltered", "DimensionExhausted", "ClassExhausted"):
        said += [f"{reason} ({count})" for reason, count in (metric.get(name) or {}).items()]
    said += [f"quota: {limit}" for limit in metric.get("QuotaExhausted") or ()]
    said += [f"none in {place}" for place, count in (metric.get("NodesAvailable") or {}).items() if not count]
    return ", ".join(said)
