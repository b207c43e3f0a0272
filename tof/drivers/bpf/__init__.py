"""The BPF programs: one C file, and the object that tools/setup compiles from it."""
