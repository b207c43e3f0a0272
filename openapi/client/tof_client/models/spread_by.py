from enum import StrEnum


class SpreadBy(StrEnum):
    FLOW = "flow"
    ORDER = "order"
    UE = "ue"

    def __str__(self) -> str:
        return str(self.value)
