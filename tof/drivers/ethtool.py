"""The ethtool ioctl: offload features of network adapters by name, and questions to them."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tof.errors import BackendError

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES = 0x1B, 0x37, 0x3A, 0x3B
_SS_FEATURES = 4
_NAME_BYTES = 32


@dataclass(frozen=True, slots=True)
class Feature:
    """One offload: ``wanted`` by the operator, ``active`` now, ``changeable`` on this adapter."""

    wanted: bool
    active: bool
    changeable: bool


def read(interface: str) -> dict[str, Feature]:
    """All features of an adapter under the kernel's names (``rx-gro``, ``tx-checksum-ipv4``)."""
    with _socket() as sock:
        names = _names(sock, interface)
        blocks = (len(names) + 31) // 32
        reply = _call(sock, interface, struct.pack("=II", _GFEATURES, blocks) + bytes(16 * blocks))
    words = [struct.unpack_from("=IIII", reply, 8 + 16 * block) for block in range(blocks)]
    features = {}
    for index, name in enumerate(names):
        available, requested, active, fixed = (bool(word >> (index % 32) & 1) for word in words[index // 32])
        if name:
            features[name] = Feature(requested, active, available and not fixed)
    return features


def write(interface: str, wanted: Mapping[str, bool]) -> None:
    """Ask for features on or off; what the adapter cannot change is left as it is."""
    have = read(interface)
    change = {name: on for name, on in wanted.items() if name in have and have[name].changeable}
    if all(have[name].wanted == on for name, on in change.items()):
        return
    with _socket() as sock:
        # Bits without a name exist: positions count in the kernel's own list only.
        names = _names(sock, interface)
        words = [[0, 0] for _ in range((len(names) + 31) // 32)]
        for name, on in change.items():
            block, bit = divmod(names.index(name), 32)
            words[block][0] |= 1 << bit
            words[block][1] |= on << bit
        payload = b"".join(struct.pack("=II", *word) for word in words)
        _call(sock, interface, struct.pack("=II", _SFEATURES, len(words)) + payload)


def ask(interface: str, request: bytes) -> bytes:
    """The answer to a request that starts with its command; BackendError if the adapter does not know it."""
    with _socket() as sock:
        return _call(sock, interface, request)


def matching(features: Iterable[str], prefixes: Iterable[str]) -> frozenset[str]:
    """The features whose names begin with one of the prefixes."""
    return frozenset(name for name in features if name.startswith(tuple(prefixes)))


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def _names(sock: socket.socket, interface: str) -> list[str]:
    info = _call(sock, interface, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0))
    (count,) = struct.unpack_from("=I", info, 16)
    head = struct.pack("=III", _GSTRINGS, _SS_FEATURES, count)
    text = _call(sock, interface, head + bytes(count * _NAME_BYTES))[12:]
    chunks = (text[at : at + _NAME_BYTES] for at in range(0, count * _NAME_BYTES, _NAME_BYTES))
    return [chunk.split(b"\0", 1)[0].decode() for chunk in chunks]


def _call(sock: socket.socket, interface: str, request: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(request, len(request))
    ifreq = struct.pack("16sP16x", interface.encode(), ctypes.addressof(buffer))
    try:
        fcntl.ioctl(sock, _SIOCETHTOOL, ifreq)
    except OSError as error:
        raise BackendError(f"{interface}: ethtool: {error.strerror}") from error
    return buffer.raw
