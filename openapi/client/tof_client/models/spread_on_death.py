from enum import StrEnum


class SpreadOnDeath(StrEnum):
    CORE = "core"
    NEXT = "next"

    def __str__(self) -> str:
        return str(self.value)
