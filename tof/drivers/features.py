"""Which devices take redirected XDP frames: the kernel's xdp-features, asked and watched over generic netlink."""

from __future__ import annotations

import errno
import os

from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

from tof.errors import BackendError

NDO_XMIT = 4
_DEV_GET = 1


class _Device(genlmsg):
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


class XdpFeatures:
    """Asks the ``netdev`` family (kernel 6.3 and newer); ``fd`` is readable when some device's features changed."""

    def __init__(self) -> None:
        self._ask = GenericNetlinkSocket()
        self._watch = GenericNetlinkSocket()
        try:
            self._ask.bind("netdev", _Device)
            self._watch.bind("netdev", _Device)
            self._watch.add_membership("mgmt")
        except NetlinkError as error:
            self.close()
            if error.code != errno.ENOENT:
                raise BackendError(f"xdp-features: {error.args[-1]}") from error
            raise BackendError("this kernel does not tell xdp-features (needs 6.3)") from error

    @property
    def fd(self) -> int:
        """For the event loop."""
        return int(self._watch.fileno())

    def takes_frames(self, ifindex: int) -> bool:
        """Whether frames can be redirected into the device in native mode."""
        message = _Device()
        message["cmd"], message["version"] = _DEV_GET, 1
        message["attrs"] = [("NETDEV_A_DEV_IFINDEX", ifindex)]
        try:
            answers = list(self._ask.nlm_request(message, msg_type=self._ask.prid, msg_flags=NLM_F_REQUEST))
        except NetlinkError as error:
            raise BackendError(f"xdp-features of interface {ifindex}: {error.args[-1]}") from error
        return any((answer.get_attr("NETDEV_A_DEV_XDP_FEATURES") or 0) & NDO_XMIT for answer in answers)

    def drain(self) -> None:
        """Take the notifications off the socket; what they say is asked anew."""
        try:
            while os.read(self.fd, 65536):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Close both sockets."""
        self._ask.close()
        self._watch.close()
