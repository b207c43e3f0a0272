"""The TOF Control Agent: decisions, pure; no clock, no socket, no event loop."""
