"""The `modelseal` command."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the command with the arguments of this process, which it takes as its own."""
    # As a program of its own would have them, and what it starts: Python has changed these.
    for number in (signal.SIGINT, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    from modelseal import _modelseal

    return _modelseal.command(["modelseal", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
