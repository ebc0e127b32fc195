"""Run one program that does not outlive whoever started it: ``tied.py PROGRAM ...``.

Standard input is held open by the parent and never written to. When it ends, however
the parent ended, the program is asked to end, and what is left of our process group
is killed if we lead one. When the program ends first, so do we, with its exit code.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 5


def main() -> None:
    """Wait for the end of the program or of standard input."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    over = threading.Event()

    def follow() -> None:
        code = child.wait()
        if not over.is_set():
            os._exit(code & 255)

    threading.Thread(target=follow, daemon=True).start()
    while os.read(0, 1024):
        pass
    over.set()
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
