"""``[vim.NAME]`` of VIMs behind an API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tof.config import NomadVim, OpenVim, VimAccess, parse
from tof.errors import SetupError

BASE = '[s1]\nenb_interface = "enb0"\nsgw_interface = "sgw0"\n[ue]\napp_interface = "apps0"\n'
NOMAD = 'backend = "nomad"\nurl = "https://nomad.example:4646/"\nsite = "lab"\n'
OPENVIM = (
    'backend = "openvim"\nurl = "http://[2001:db8::1]"\nsite = "lab"\ntenant = "mec"\nnetwork = "apps-net"\n'
)


def vims(text: str) -> dict[str, object]:
    return {vim.name: vim for vim in parse(BASE + text).vims}


def test_several_at_once() -> None:
    found = vims(f"[vim.edge]\n{NOMAD}[vim.old]\n{OPENVIM}")
    assert found.keys() == {"edge", "local", "old"}
    assert found["edge"] == NomadVim("edge", VimAccess("https://nomad.example:4646", "lab"))
    access = VimAccess("http://[2001:db8::1]", "lab")
    assert found["old"] == OpenVim("old", access, "mec", "apps-net")


def test_everything_that_can_be_set() -> None:
    text = """[vim.edge]
backend = "nomad"
url = "https://nomad.example"
site = "lab"
token_file = "/etc/tof/nomad.token"
ca_file = "/etc/tof/ca.pem"
cert_file = "/etc/tof/tof.pem"
key_file = "/etc/tof/tof.key"
answer_timeout_s = 3
datacenters = ["dc1", "dc2"]
region = "eu"
namespace = "mec"
driver = "docker"
network = "cni/apps"
mhz_per_cpu = 2400
build_timeout_s = 120
probe_timeout_s = 10
"""
    files = (
        Path("/etc/tof/nomad.token"),
        Path("/etc/tof/ca.pem"),
        Path("/etc/tof/tof.pem"),
        Path("/etc/tof/tof.key"),
    )
    assert vims(text)["edge"] == NomadVim(
        "edge", VimAccess("https://nomad.example", "lab", *files, 3.0), ("dc1", "dc2"), "eu", "mec", "docker", "cni/apps",
        2400, 120.0, 10.0,
    )  # fmt: skip
    more = 'platform_network = "mep"\nhypervisor = "xenhvm"\nunikernels = "click*"\n[vim.old.images]\n"a.b" = "/images/a"\n'
    found = vims(f"[vim.old]\n{OPENVIM}{more}")["old"]
    assert isinstance(found, OpenVim)
    assert (found.platform_network, found.hypervisor, found.unikernels) == ("mep", "xenhvm", ("click*",))
    assert found.images == (("a.b", Path("/images/a")),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('backend = "cloud"', "vim.x.backend: expected local or libvirt or nomad or openvim"),
        ('backend = "nomad"', "vim.x.url: missing"),
        ('backend = "nomad"\nurl = "nomad.example:4646"', "vim.x.url: expected http://"),
        ('backend = "nomad"\nurl = "http://me:secret@nomad.example"', "vim.x.url: expected http://"),
        ('backend = "nomad"\nurl = "http://nomad.example:99999"', "vim.x.url: expected http://"),
        ('backend = "nomad"\nurl = "http://nomad.example?x=1"', "vim.x.url: expected http://"),
        (f"{NOMAD}pool = []", "vim.x.pool: unknown key"),
        (f'{NOMAD}network = "bridge"', "vim.x.network: expected host, none or cni/NAME"),
        (f"{NOMAD}datacenters = []", "vim.x.datacenters: must not be empty"),
        (f'{NOMAD}token_file = "token"', "vim.x.token_file: expected an absolute path"),
        (f'{NOMAD}cert_file = "/c.pem"', "vim.x.cert_file: cert_file and key_file go together"),
        ('backend = "openvim"\nurl = "http://x"\nsite = "lab"\ntenant = "mec"', "vim.x.network: missing"),
        ('backend = "nomad"\nurl = "http://x"', "vim.x.site: missing"),
        ('backend = "nomad"\nurl = "http://x"\nsite = "A.b"', "vim.x.site: expected 1 to 16 of"),
        (f'{OPENVIM}hypervisor = "qemu"', "vim.x.hypervisor: expected kvm or xen-unik or xenhvm"),
        (f'{OPENVIM}[vim.x.images]\na = "x"', "vim.x.images.a: expected an absolute path"),
    ],
)
def test_what_cannot_be(text: str, said: str) -> None:
    with pytest.raises(SetupError) as caught:
        vims(f"[vim.x]\n{text}\n")
    assert str(caught.value).startswith(said)


def test_the_examples_are_right() -> None:
    root = Path(__file__).parents[2]
    example = (
        (root / "deploy" / "tof.toml")
        .read_text()
        .split("# Apps on VIMs behind a network")[1]
        .split("\n\n")[0]
    )
    lines = [line.removeprefix("# ") for line in example.splitlines()[1:]]
    assert vims("\n".join(lines)).keys() == {"edge", "local", "old"}
    documents = (root / "docs" / "vim.md").read_text().split("## Remote VIMs")[1]
    common, nomad, openvim = (block.split("```")[0] for block in documents.split("```toml\n")[1:4])
    shared = common.removeprefix("[vim.NAME]")
    assert isinstance(vims(nomad + "\n".join(shared.splitlines()[1:]))["edge"], NomadVim)
    head, images = openvim.split("[vim.old.images]")
    extra = [line for line in shared.splitlines()[1:] if not line.startswith("url")]
    found = vims(head + "\n".join(extra) + "\n[vim.old.images]" + images)["old"]
    assert isinstance(found, OpenVim)
    assert len(found.images) == 1
