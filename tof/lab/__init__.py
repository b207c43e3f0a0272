"""Namespaces, emulated and real peers, the demo and the replayer."""
