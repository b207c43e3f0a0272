"""Capture files of Ethernet on the disk: pcap and pcapng in, pcap out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tof.errors import DecodeError, SetupError
from tof.wire.capture import ETHERNET, Frame, dump, frames

__all__ = ["ETHERNET", "Frame", "dump", "parse", "read", "write"]


def read(path: Path) -> list[Frame]:
    """All frames of a capture file; SetupError with one clear line when that cannot be."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SetupError(f"{path}: {error.strerror}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str = "capture") -> list[Frame]:
    """All frames of a capture file's bytes; ``name`` stands in the SetupError."""
    try:
        return [_ethernet(frame) for frame in frames(data)]
    except DecodeError as error:
        raise SetupError(f"{name}: {error}") from error


def write(path: Path, captured: Iterable[Frame]) -> None:
    """Write the frames to a pcap file."""
    path.write_bytes(dump(captured))


def _ethernet(frame: Frame) -> Frame:
    if frame.link_type != ETHERNET:
        raise DecodeError(f"has link type {frame.link_type}; only Ethernet (1) captures can be used")
    return frame
