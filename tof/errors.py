"""The error tree: every error the TOF raises on purpose means one of four things.

TofError
├── DecodeError     a peer's bytes do not parse: the packet passes untouched and is counted under ``reason``
├── RequestError    a caller asked for something that cannot be: nothing changed
│   ├── BadRequest  (400)   ├── Forbidden (403)   ├── NotFound (404)   └── Conflict (409)
├── BackendError    the kernel, OVS or the disk refused: retried with backoff, 503 towards callers
└── SetupError      host or configuration cannot carry a TOF: one line that says what to do, exit status 2
"""

from __future__ import annotations


class TofError(Exception):
    """Base of every error the TOF raises on purpose."""


class DecodeError(TofError):
    """The bytes do not parse; ``reason`` is a short, stable, countable name (``gtpu_truncated``)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RequestError(TofError):
    """A request that cannot be granted; ``field`` names the culprit (``serviceIP``) or is empty."""

    status = 400
    title = "Bad Request"

    def __init__(self, detail: str, field: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class BadRequest(RequestError):
    """The request itself is wrong."""


class Forbidden(RequestError):
    """There is no room for another one."""

    status = 403
    title = "Forbidden"


class NotFound(RequestError):
    """The thing asked for does not exist."""

    status = 404
    title = "Not Found"


class Conflict(RequestError):
    """The request clashes with what is already provisioned."""

    status = 409
    title = "Conflict"


class BackendError(TofError):
    """The kernel, OVS or the disk refused; the data plane is unchanged or will be repaired."""


class SetupError(TofError):
    """The host or the configuration cannot carry a TOF; the message says what to do."""
