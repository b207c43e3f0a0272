"""One coverage-guided run of one target: python -m tools.fuzz.cover TARGET [libFuzzer's options] [CORPUS]."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(
    include=["tof.wire", "tof.agent", "tof.daemon.feed", "tof.drivers.memory", "tof.vim"]
):
    from tools.fuzz.agent_target import life
    from tools.fuzz.pieces_target import pieces
    from tools.fuzz.vim_target import vim
    from tools.fuzz.wire_targets import TARGETS


def main() -> None:
    name = sys.argv.pop(1)
    target = {**TARGETS, "agent": life, "pieces": pieces, "vim": vim}[name]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
