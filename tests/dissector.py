"""What Wireshark's dissector makes of datagrams of IPFIX."""

from __future__ import annotations

import json
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from typing import Any

from tof.wire import inet

PORT = 4739
_PCAP = struct.Struct("<IHHiIII")
_PACKET = struct.Struct("<IIII")
RAW_IP = 101


def dissect(datagrams: Iterable[bytes]) -> list[dict[str, Any]]:
    """The ``cflow`` tree of each datagram, with repeated fields as lists."""
    capture = _PCAP.pack(0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, RAW_IP)
    here = bytes((127, 0, 0, 1))
    for one in datagrams:
        packet = inet.encode_ipv4(
            inet.IPv4(here, here, inet.UDP_PROTOCOL, inet.encode_udp(inet.UDP(40000, PORT, one)))
        )
        capture += _PACKET.pack(0, 0, len(packet), len(packet)) + packet
    with tempfile.NamedTemporaryFile(suffix=".pcap") as file:
        file.write(capture)
        file.flush()
        run = subprocess.run(
            ["tshark", "-r", file.name, "-T", "json", "--no-duplicate-keys", "-d", f"udp.port=={PORT},cflow"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    layers = [each["_source"]["layers"] for each in json.loads(run.stdout)]
    assert not any("_ws.malformed" in layer for layer in layers), run.stdout
    return [layer["cflow"] for layer in layers]


def flows(trees: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The data records of messages, each its fields by name."""
    sets = [value for tree in trees for key, value in tree.items() if key.startswith("Set")]
    return [value for one in sets for key, value in one.items() if key.startswith("Flow ")]
