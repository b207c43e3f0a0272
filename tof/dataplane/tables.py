"""The tables of br-ue: a packet only ever goes to a higher one."""

from __future__ import annotations

from typing import Final

PORTS: Final = 0
CLASSIFIER: Final = 1
SFF: Final = 2
NAT: Final = 3
OUTPUT: Final = 4
REMOTE: Final = 5
EGRESS: Final = 6
LAN: Final = 7
INGRESS: Final = 8
"""What application ports say to others than UEs: to whom, may it out, where is that, may it in there."""

UP: Final = 1
DOWN: Final = 2
BACK: Final = 3
"""What ``reg3`` says: from a UE, from an application, from an application and through its chain already."""

TABLE_NAMES: Final = {
    PORTS: "ports",
    CLASSIFIER: "classifier",
    SFF: "SFF",
    NAT: "NAT",
    OUTPUT: "output",
    REMOTE: "remote",
    EGRESS: "egress",
    LAN: "LAN",
    INGRESS: "ingress",
}
