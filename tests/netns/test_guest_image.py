"""``tools/guest-image``: the same bytes from the same packages, made once."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from libvirt_host import TOP, guest_images

pytestmark = pytest.mark.netns

TOOL = str(TOP / "tools" / "guest-image")


def build(directory: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, TOOL, str(directory), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    return dict(json.loads(done.stdout))


def test_it_is_reproducible_and_made_once(tmp_path: Path) -> None:
    guest_images()
    one, other = build(tmp_path / "one"), build(tmp_path / "other")
    assert one | {"directory": ""} == other | {"directory": ""}
    for name in ("kernel", "initrd", "image.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    made = (tmp_path / "one" / "initrd").stat().st_mtime_ns
    build(tmp_path / "one")
    assert (tmp_path / "one" / "initrd").stat().st_mtime_ns == made
    content = gzip.decompress((tmp_path / "one" / "initrd").read_bytes())
    assert b"virtio_net.ko" in content
    assert b"xen-netfront.ko" in content


def test_wrong_usage() -> None:
    assert (
        subprocess.run([sys.executable, TOOL, "--nothing"], capture_output=True, check=False).returncode == 2
    )
