"""What libvirt says, as errors of VIMs; the words are those of a libvirt 9.0 with QEMU 7.2."""

from __future__ import annotations

import pytest

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
from tof.vim.libvirt_errors import vim_error


@pytest.mark.parametrize(
    ("code", "origin", "message", "kind"),
    [
        (38, 7, "Failed to connect socket to '/run/libvirt/libvirt-sock': Connection refused", Unavailable),
        (38, 7, "Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory", Unavailable),
        (38, 7, "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied", AuthFailed),
        (38, 7, "End of file while reading data: Input/output error", Unavailable),
        (1, 7, "internal error: client socket is closed", Unavailable),
        (39, 7, "any other word of the connection", Unavailable),
        (45, 7, "authentication failed: no agent", Unavailable),
        (45, 46, "authentication failed: no agent", AuthFailed),
        (9, 20, "operation failed: domain 'x' already exists with uuid 1", AlreadyExists),
        (67, 10, "unsupported configuration: cgroup cpu is required for scheduler tuning", Rejected),
        (92, 20, "XML document failed to validate against schema", Rejected),
        (1, 10, "internal error: qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory", NoCapacity),
        (68, 10, "Timed out during operation: cannot acquire state change lock", TimedOut),
        (1, 10, "internal error: qemu: could not load kernel '/k': No such file or directory", Rejected),
        (38, 0, "Cannot get interface MTU on 'none0': No such device", Rejected),
        (1, 10, "internal error: process exited: Could not access KVM kernel module", BackendFault),
        (1, 10, "internal error: something else", BackendFault),
        (12345, 99, "a later libvirt's", BackendFault),
    ],
)  # fmt: skip
def test_each_word_means_one_error(code: int, origin: int, message: str, kind: type[VimError]) -> None:
    error = vim_error(DomainError(message, code, origin))
    assert type(error) is kind
    assert error.message == message
    assert error.remedy
