from enum import StrEnum


class TunnelState(StrEnum):
    ENDED = "ended"
    LEARNT = "learnt"
    PAIRED = "paired"

    def __str__(self) -> str:
        return str(self.value)
