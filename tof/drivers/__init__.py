"""The only code that touches the kernel, Open vSwitch and the disk."""
