"""What VIMs say, and which error that is: their words before the status."""

from __future__ import annotations

import pytest

from tof.vim import nomad, openvim
from tof.vim.errors import (
    AlreadyExists,
    AuthFailed,
    BackendFault,
    NoCapacity,
    QuotaExceeded,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)
from tof.vim.rest import judged, shaped


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (500, "Enforcing job modify index 0: job already exists", AlreadyExists),
        (500, "2 errors occurred: * Missing job datacenters * Missing job task groups", Rejected),
        (403, "Permission denied", AuthFailed),
        (500, "Permission denied", AuthFailed),
        (403, "ACL token not found", AuthFailed),
        (403, "invalid secret", AuthFailed),
        (500, "rpc error: Quota limit exceeded", QuotaExceeded),
        (500, "No cluster leader", Unavailable),
        (500, "No path to region", Unavailable),
        (429, "", Unavailable),
        (404, "job not found", Rejected),
        (400, "unexpected EOF", Rejected),
        (500, "", BackendFault),
        (502, "Bad Gateway", Unavailable),
        (504, "Gateway Timeout", TimedOut),
        (302, "", BackendFault),
    ],
)
def test_nomad(status: int, said: str, kind: type[VimError]) -> None:
    error = judged(status, said, "register", nomad.WORDS)
    assert type(error) is kind
    assert error.message == f"register: {said or f'HTTP status {status}'}"
    assert error.remedy


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (409, "Value '00:15:17:15:5d:84' already in use for 'mac'", AlreadyExists),
        (400, "Invalid content at 'server': 'flavorRef' is a required property", Rejected),
        (404, "image_id 00000000-0000-0000-0000-000000000000 not found or not ACTIVE", Rejected),
        (500, "Database internal Error 1264: Out of range value for column 'ram' at row 1", Rejected),
        (400, "'NoneType' object has no attribute 'read'", BackendFault),
        (
            400,
            "No room at data center. Cannot find a host with 60000 MB memory and 1 cpus available",
            NoCapacity,
        ),
        (401, "Needed admin privileges", AuthFailed),
        (408, "Task queue full at host", Unavailable),
        (408, "Database connection timeout Try Again", TimedOut),
        (409, "something else", AlreadyExists),
        (503, "", Unavailable),
    ],
)
def test_openvim(status: int, said: str, kind: type[VimError]) -> None:
    assert type(judged(status, said, "rest", openvim.WORDS)) is kind


@pytest.mark.parametrize("wrong", [{}, [], None, 3, "text"])
def test_an_answer_of_another_shape(wrong: object) -> None:
    with pytest.raises(BackendFault, match="unknown shape"), shaped("lookup"):
        _ = wrong["server"]["id"]  # type: ignore[index]


def test_mac_addresses() -> None:
    one, two = openvim.mac_of("tof.lab.default.web"), openvim.mac_of("tof.lab.default.web", 1)
    assert one == openvim.mac_of("tof.lab.default.web") != two
    assert one.startswith("06:"), "none of those that stand for tunnels and services"
    assert len(one.split(":")) == 6
