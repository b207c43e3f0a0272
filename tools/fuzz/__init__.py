"""Fuzzing: the Python side guided by coverage, the XDP and tc programs against an oracle; see docs/fuzzing.md."""
