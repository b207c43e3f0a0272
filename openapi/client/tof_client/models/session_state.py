from enum import StrEnum


class SessionState(StrEnum):
    ENDED = "ended"
    LEARNT = "learnt"
    PAIRED = "paired"

    def __str__(self) -> str:
        return str(self.value)
