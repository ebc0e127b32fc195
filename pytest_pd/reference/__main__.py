"""Programs of the reference engine.

python -m pytest_pd.reference serve fixtures/models/tiny --port 8100
python -m pytest_pd.reference build /tmp/tiny
python -m pytest_pd.reference zygote
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    # Set before numpy is imported: more threads make small matrices slower.
    os.environ[_name] = "1"


def main(argv: list[str]) -> int:
    """Run one program and return its exit code; user errors are exit code 2."""
    from pytest_pd.errors import PdError

    try:
        match argv:
            case ["serve", *rest]:
                from pytest_pd.reference import serve

                return serve.run(rest)
            case ["zygote"]:
                from pytest_pd.reference import zygote

                return zygote.run()
            case ["build", folder]:
                from pytest_pd.reference import recall

                recall.write(Path(folder))
                return 0
    except PdError as error:
        print(f"reference engine: {error}", file=sys.stderr)
        return 2
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
