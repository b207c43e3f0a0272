"""An app as a Nomad job; no input or output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tof.vim.errors import Rejected
from tof.vim.interface import AppSpec

KEY_META, DIGEST_META = "tof-key", "tof-digest"
LEAST_CPU, LEAST_MB, USUAL_CPU, USUAL_MB = 20, 10, 100, 128
WEEK_NS, SECOND_NS = 604_800_000_000_000, 1_000_000_000
IMAGE_OPTIONS: Final[Mapping[str, str]] = {"docker": "image", "podman": "image", "qemu": "image_path"}
"""What drivers that take images call theirs."""
ARGUMENTS: Final = "args"


@dataclass(frozen=True, slots=True)
class NomadPolicy:
    """How apps become jobs. ``network``: ``host``, the client's own address; ``cni/NAME``; or ``none``.

    ``wait_s``: how long a blocking query waits for news.
    """

    datacenters: tuple[str, ...] = ("dc1",)
    region: str = ""
    namespace: str = ""
    driver: str = "exec"
    network: str = "host"
    mhz_per_cpu: int = 1000
    wait_s: float = 10.0


def job_of(spec: AppSpec, key: str, digest: str, policy: NomadPolicy) -> dict[str, Any]:
    """The job of an app: one allocation that is not started again, which is the TOF's business."""
    cpu = USUAL_CPU if spec.flavour.cpu is None else round(spec.flavour.cpu * policy.mhz_per_cpu)
    resources: dict[str, Any] = {
        "CPU": max(LEAST_CPU, cpu),
        "MemoryMB": max(LEAST_MB, spec.flavour.memory_mb or USUAL_MB),
    }
    if policy.network == "host":
        resources["Networks"] = [{"MBits": 1}]
    task = {
        "Name": "app",
        "Driver": policy.driver,
        "Config": _driver_config(spec, policy.driver),
        "Env": dict(spec.environment),
        "KillTimeout": SECOND_NS,
        "Resources": resources,
        "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
    }
    group: dict[str, Any] = {
        "Name": "app",
        "Count": 1,
        "RestartPolicy": {"Interval": WEEK_NS, "Attempts": 0, "Delay": 15 * SECOND_NS, "Mode": "fail"},
        "ReschedulePolicy": {"Attempts": 0, "Unlimited": False},
        "EphemeralDisk": {"SizeMB": 10},
        "Tasks": [task],
    }
    if policy.network.startswith("cni/"):
        group["Networks"] = [{"Mode": policy.network}]
    scope = {"Region": policy.region, "Namespace": policy.namespace}
    return {
        **{name: value for name, value in scope.items() if value},
        "ID": key,
        "Name": key,
        "Type": "batch",
        "Priority": 50,
        "Datacenters": list(policy.datacenters),
        "Meta": {KEY_META: key, DIGEST_META: digest},
        "TaskGroups": [group],
    }


def _driver_config(spec: AppSpec, driver: str) -> dict[str, Any]:
    option = IMAGE_OPTIONS.get(driver)
    if option is None:
        if spec.image is not None:
            raise Rejected(f"image: the driver {driver} runs commands of its host, no images")
        if not spec.command:
            raise Rejected(f"command: the driver {driver} needs one")
        return {"command": spec.command[0], ARGUMENTS: list(spec.command[1:])}
    if spec.image is None:
        raise Rejected(f"image: the driver {driver} needs one")
    return {option: spec.image, **({ARGUMENTS: list(spec.command)} if spec.command else {})}
