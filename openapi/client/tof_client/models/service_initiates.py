from enum import StrEnum


class ServiceInitiates(StrEnum):
    ANY = "any"
    NONE = "none"

    def __str__(self) -> str:
        return str(self.value)
