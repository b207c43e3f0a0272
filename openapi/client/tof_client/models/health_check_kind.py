from enum import StrEnum


class HealthCheckKind(StrEnum):
    HTTP = "http"
    ICMP = "icmp"
    TCP = "tcp"

    def __str__(self) -> str:
        return str(self.value)
