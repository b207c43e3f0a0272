from enum import StrEnum


class TunnelDirection(StrEnum):
    DOWNLINK = "downlink"
    UPLINK = "uplink"

    def __str__(self) -> str:
        return str(self.value)
