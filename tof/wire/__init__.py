"""Bytes to values and back, pure: GTP-U, IP, UDP, ICMP."""
