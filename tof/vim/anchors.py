"""The source documents' own figures (SUPERFLUIDITY I5.2b section 3.4; GARR 2017, "OpenVIM e unikernel"), in seconds.

ClickOS on Xen, means of 100 runs. They are to be compared in shape (scheduling stays flat, the hypervisor's part grows with
the load), not in absolute value: the machines were others.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tof.vim.chart import Bar
from tof.vim.statistics import Estimate


class Load(NamedTuple):
    """One more ClickOS on the tuned OpenVIM, while this many run: the time of each phase."""

    background: int
    rest: float
    scheduling: float
    spawning: float
    libvirt: float

    @property
    def total(self) -> float:
        """All phases."""
        return self.rest + self.scheduling + self.spawning + self.libvirt


OPENVIM_LOADS: Final = (
    Load(10, 0.004, 0.004, 0.185, 0.157),
    Load(20, 0.007, 0.004, 0.216, 0.161),
    Load(50, 0.007, 0.004, 0.192, 0.181),
    Load(100, 0.007, 0.004, 0.205, 0.216),
    Load(150, 0.007, 0.005, 0.207, 0.254),
    Load(200, 0.007, 0.005, 0.206, 0.297),
    Load(250, 0.007, 0.005, 0.195, 0.346),
    Load(300, 0.008, 0.006, 0.195, 0.401),
)
"""GARR 2017, stress test."""

OPENVIM_BATCHES: Final[dict[int, dict[int, float]]] = {
    0: {5: 0.319, 6: 0.337, 7: 0.342, 8: 0.371, 9: 0.374, 10: 0.391},
    10: {5: 0.447, 6: 0.467, 7: 0.461, 8: 0.455, 9: 0.454, 10: 0.463},
    50: {5: 0.535, 6: 0.539, 7: 0.526, 8: 0.545, 9: 0.551, 10: 0.543},
    100: {5: 0.622, 6: 0.594, 7: 0.624, 8: 0.616, 9: 0.622, 10: 0.632},
    200: {5: 0.814, 6: 0.829, 7: 0.841, 8: 0.862, 9: 0.851, 10: 0.863},
}
"""GARR 2017, batch tests: background instances, instances of the batch, seconds."""

NOVA_STOCK: Final = {"core components": 0.5, "create image": 1.0, "XML and libvirt": 0.4}
"""I5.2b, Figures 6 and 7 and the text: the sum exceeds two seconds, of which the text gives these parts, rounded."""

NOMAD_STOCK: Final = {"scheduling": 0.05, "driver": 0.28}
"""I5.2b, Figure 8."""


def bars(vim: str) -> list[Bar]:
    """What the source documents have of a VIM, as bars."""
    if vim == "openvim":
        return [_bar(f"source, {load.background} VMs", _parts(load)) for load in OPENVIM_LOADS]
    stock = {"nova": NOVA_STOCK, "nomad": NOMAD_STOCK}.get(vim)
    return [] if stock is None else [_bar("source, stock", stock)]


def load_total(background: int) -> float | None:
    """One more on the tuned OpenVIM while so many run, if the source measured that."""
    return next((load.total for load in OPENVIM_LOADS if load.background == background), None)


def batch_total(background: int, size: int) -> float | None:
    """A batch of so many there while so many run, if the source measured that."""
    return OPENVIM_BATCHES.get(background, {}).get(size)


def batch_bar(background: int, size: int) -> Bar | None:
    """The same as a bar."""
    total = batch_total(background, size)
    label = f"source, batch of {size}, {background} VMs"
    return None if total is None else Bar(label, (("batch", Estimate(total, None, 1)),), quoted=True)


def _parts(load: Load) -> dict[str, float]:
    return {name: getattr(load, name) for name in ("rest", "scheduling", "spawning", "libvirt")}


def _bar(label: str, parts: dict[str, float]) -> Bar:
    return Bar(label, tuple((name, Estimate(mean, None, 1)) for name, mean in parts.items()), quoted=True)
