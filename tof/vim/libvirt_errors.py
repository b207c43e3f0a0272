"""What libvirt says, as the errors of VIMs; by its numbers, and by its words where one number means many things."""

from __future__ import annotations

import re
from typing import Final

from tof.agent.domain import DomainError
from tof.vim.errors import (
    AlreadyExists,
    AuthFailed,
    BackendFault,
    NoCapacity,
    Rejected,
    TimedOut,
    Unavailable,
    VimError,
)

_BY_ORIGIN: Final[dict[int, type[VimError]]] = {7: Unavailable, 13: Unavailable}  # rpc, remote
_BY_CODE: Final[dict[int, type[VimError]]] = {
    2: NoCapacity,  # no memory
    3: Rejected,  # no support
    5: Unavailable,  # no connection
    6: Unavailable,  # invalid connection
    8: Rejected,  # invalid argument
    27: Rejected,  # XML error
    28: AlreadyExists,  # domain exists
    29: AuthFailed,  # operation denied
    35: Rejected,  # XML detail
    39: Unavailable,  # RPC
    45: AuthFailed,  # authentication failed
    67: Rejected,  # configuration unsupported
    68: TimedOut,  # operation timeout
    79: AuthFailed,  # authentication cancelled
    88: AuthFailed,  # access denied
    92: Rejected,  # does not validate against the schema
    94: Unavailable,  # authentication unavailable
}
_BY_WORDS: Final[tuple[tuple[str, type[VimError], str], ...]] = (
    (r"failed to connect .*permission denied", AuthFailed, "let the TOF's user use libvirt's socket"),
    (r"kvm", BackendFault, 'see whether this host can use KVM; hypervisor = "qemu" does without'),
    (r"already exists|already defined|already in use by|already active", AlreadyExists, ""),
    (r"cannot allocate memory|cannot set up guest memory|not enough (free )?memory|failed to allocate", NoCapacity, ""),
    (r"timed out|cannot acquire state change lock", TimedOut, ""),
    (r"failed to connect|end of file|client socket is closed|connection reset|broken pipe", Unavailable, ""),
    (r"permission denied|could not open .*denied", Rejected, "let the user that libvirt runs QEMU as read the images"),
    (r"could not open|no such file|could not load|cannot access storage", Rejected, "see whether the image is complete"),
    (r"not available on this host|cgroup .*required|controller .*not (mounted|found|available)", Rejected,
     "leave flavour out, or give libvirt the control groups"),
    (r"cannot get interface mtu|unable to add bridge|bridge .*no such device|no such device", Rejected,
     "see whether the VIM's platform_bridge is there"),
)  # fmt: skip


def vim_error(error: DomainError) -> VimError:
    """The error of VIMs that it means, with libvirt's own words."""
    text = str(error)
    for words, kind, hint in _BY_WORDS:
        if re.search(words, text, re.IGNORECASE):
            return kind(text, hint)
    kind = _BY_ORIGIN.get(error.origin) or _BY_CODE.get(error.code, BackendFault)
    return kind(text, "see the log of libvirt, and try again" if kind is BackendFault else "")
