"""Ends the processes of ``prepaid up`` when it could not do so itself (it was killed).

Run as a module by the supervisor. Each line on standard input is the id of a process group, with a
minus sign before one that has ended; the input ends when the supervisor does, whatever ended it. A
line ``done`` means there is nothing left.
"""

import os
import signal
import sys
import time

# Long enough for a run to end its transaction, short enough to wait for.
GRACE_SECONDS = 8.0


def main() -> None:
    """Wait for the supervisor's end, then end what it left."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    groups = list[int]()
    for line in sys.stdin:
        if line.strip() == "done":
            return
        if (group := int(line)) > 0:
            groups.append(group)
        elif -group in groups:
            groups.remove(-group)  # its number may be given to somebody else
    stop_by = time.monotonic() + GRACE_SECONDS
    for group in groups:
        send(group, signal.SIGTERM)
    while any(send(group, 0) for group in groups) and time.monotonic() < stop_by:
        time.sleep(0.2)
    for group in groups:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Send a signal to a process group; False if there is none any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    main()
