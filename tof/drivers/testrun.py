"""BPF_PROG_TEST_RUN: an XDP program on a frame of one's own, once, many times, or as a packet generator."""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_size_t, c_uint32, c_void_p

from tof.drivers.libbpf import check, lib


class TestRun(ctypes.Structure):
    """struct bpf_test_run_opts."""

    _fields_ = (
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    )


class XdpContext(ctypes.Structure):
    """struct xdp_md."""

    _fields_ = tuple(
        (name, c_uint32)
        for name in ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index", "egress_ifindex")
    )


LIVE_FRAMES = 2  # BPF_F_TEST_XDP_LIVE_FRAMES: frames take their verdict's way for real


def run_xdp(
    program: int, frame: bytes, *, ifindex: int, repeat: int = 1, live: bool = False
) -> tuple[int, bytes, int]:
    """BPF_PROG_TEST_RUN of an XDP program: (verdict, frame afterwards, nanoseconds per run)."""
    source = ctypes.create_string_buffer(frame, len(frame))
    target = ctypes.create_string_buffer(16384)
    context = XdpContext(0, len(frame), 0, ifindex, 0, 0)
    options = TestRun(
        sz=ctypes.sizeof(TestRun),
        data_in=ctypes.addressof(source),
        data_size_in=len(frame),
        ctx_in=ctypes.addressof(context),
        ctx_size_in=ctypes.sizeof(context),
        repeat=repeat,
        flags=LIVE_FRAMES if live else 0,
    )
    if not live:
        options.data_out, options.data_size_out = ctypes.addressof(target), len(target)
    check(lib.bpf_prog_test_run_opts(program, ctypes.byref(options)), "BPF_PROG_TEST_RUN")
    return (
        int(options.retval),
        target.raw[: options.data_size_out] if not live else b"",
        int(options.duration),
    )
