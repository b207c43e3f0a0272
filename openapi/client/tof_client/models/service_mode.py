from enum import StrEnum


class ServiceMode(StrEnum):
    DIVERT = "divert"
    SHADOW = "shadow"

    def __str__(self) -> str:
        return str(self.value)
