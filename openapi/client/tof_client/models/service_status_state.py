from enum import StrEnum


class ServiceStatusState(StrEnum):
    BROKEN_CHAIN = "broken_chain"
    IN_FORCE = "in_force"
    OUT_OF_HOURS = "out_of_hours"
    SHADOW = "shadow"
    UNHEALTHY = "unhealthy"
    UNLEARNT = "unlearnt"
    UNRESOLVED = "unresolved"

    def __str__(self) -> str:
        return str(self.value)
