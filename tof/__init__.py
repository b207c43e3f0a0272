"""tof: an asynchronous, event-driven MEC Traffic Offloading Function."""

__version__ = "0.1.0"
