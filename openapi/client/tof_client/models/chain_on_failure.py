from enum import StrEnum


class ChainOnFailure(StrEnum):
    CORE = "core"
    SKIP = "skip"

    def __str__(self) -> str:
        return str(self.value)
