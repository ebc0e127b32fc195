"""Run one program that does not outlive whoever started it: ``tied.py PROGRAM ...``.

Standard input is held open by the parent and never written to. When it ends, however
the parent ended, the program is asked to end; when the program ends first, so do we,
with its exit code.
"""

import os
import subprocess
import sys
import threading

GRACE_S = 5


def main() -> None:
    """Wait for the end of the program or of standard input."""
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=lambda: os._exit(child.wait() & 255), daemon=True).start()
    while os.read(0, 1024):
        pass
    child.terminate()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
