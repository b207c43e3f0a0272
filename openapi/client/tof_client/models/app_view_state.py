from enum import StrEnum


class AppViewState(StrEnum):
    BUILDING = "building"
    FAILED = "failed"
    PROBING = "probing"
    PROVISIONING = "provisioning"
    READY = "ready"
    REQUESTED = "requested"
    RESTARTING = "restarting"
    TERMINATING = "terminating"
    UNDOING = "undoing"

    def __str__(self) -> str:
        return str(self.value)
