"""The composition root: owns the clock, the tasks and the shutdown."""

from tof.daemon.run import run

__all__ = ["run"]
