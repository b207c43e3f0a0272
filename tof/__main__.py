"""``python -m tof``: the command line."""

from __future__ import annotations

from tof.cli import main

if __name__ == "__main__":
    main()
