"""``[vim.NAME]`` with ``backend = "nomad"`` or ``"openvim"``."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tof.config.fields import (
    Table,
    choice,
    directory,
    listed,
    maybe,
    number,
    pattern,
    refuse,
    several,
    text_of,
    whole,
)
from tof.config.settings import Ue
from tof.config.vim_settings import NomadVim, OpenVim, VimAccess

_NO_FILE: Final[tuple[Path, ...]] = ()
_name = pattern(r"[^,;()'\"\0]{1,64}", "a name of 1 to 64 characters, none of , ; ( ) ' \"")
_site = pattern(
    r"[a-z0-9]([a-z0-9-]{0,14}[a-z0-9])?", "1 to 16 of a-z, 0-9 and -, hyphens only between others"
)
_maybe_name = pattern(r"[^,;()'\"\0]{0,64}", "a name of at most 64 characters, none of , ; ( ) ' \"")


def read_nomad(name: str, table: Table, _ue: Ue) -> NomadVim:
    """Apps as jobs of Nomad."""
    access, usual = _access(table), NomadVim(name, VimAccess("", ""))
    vim = NomadVim(
        name,
        access,
        table.take("datacenters", several(_name), usual.datacenters),
        table.take("region", _maybe_name, usual.region),
        table.take("namespace", _maybe_name, usual.namespace),
        table.take("driver", _name, usual.driver),
        table.take("network", pattern(r"host|none|cni/[^\0]{1,60}", "host, none or cni/NAME"), usual.network),
        table.take("mhz_per_cpu", whole(1, 1_000_000), usual.mhz_per_cpu),
        *_timeouts(table),
    )
    table.done()
    return vim


def read_openvim(name: str, table: Table, _ue: Ue) -> OpenVim:
    """Apps as servers of OpenVIM."""
    access, usual = _access(table), OpenVim(name, VimAccess("", ""), "", "")
    vim = OpenVim(
        name,
        access,
        table.take("tenant", _name),
        table.take("network", _name),
        table.take("platform_network", _maybe_name, usual.platform_network),
        table.take("hypervisor", choice("kvm", "xen-unik", "xenhvm"), usual.hypervisor),
        table.take("unikernels", listed(_name), usual.unikernels),
        _images(table.table("images")),
        *_timeouts(table),
    )
    table.done()
    return vim


def _images(table: Table) -> tuple[tuple[str, Path], ...]:
    return tuple((name, table.take(name, directory)) for name in table.keys)


def _timeouts(table: Table) -> tuple[float, float]:
    return (
        table.take("build_timeout_s", number(0.5, 3600), 60.0),
        table.take("probe_timeout_s", number(0.5, 3600), 30.0),
    )


def _access(table: Table) -> VimAccess:
    usual = VimAccess("", "")
    access = VimAccess(
        table.take("url", _url),
        table.take("site", _site),
        _file(table, "token_file"),
        _file(table, "ca_file"),
        _file(table, "cert_file"),
        _file(table, "key_file"),
        answer_timeout_s=table.take("answer_timeout_s", number(0.5, 600), usual.answer_timeout_s),
    )
    if (access.cert_file is None) != (access.key_file is None):
        refuse(table.path_of("cert_file"), "cert_file and key_file go together")
    return access


def _file(table: Table, key: str) -> Path | None:
    return next(iter(table.take(key, maybe(directory), _NO_FILE)), None)


def _url(value: object, path: str) -> str:
    """``http://`` or ``https://``, a host, perhaps a path; without query, and without credentials."""
    text = text_of(value, path)
    why = f"expected http://HOST[:PORT][/PATH] or https://…, not {text!r}"
    try:
        url = urlsplit(text)
        good = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        good = False
    if (
        not good
        or url.username is not None
        or url.query
        or url.fragment
        or any(each.isspace() for each in text)
    ):
        refuse(path, why)
    return text.rstrip("/")
