"""Where a history lies: a folder, or a path of an object store. No server.

A folder may hold nights, run folders, or both. Object stores go through fsspec, which
is imported on use: ``s3://bucket/path`` needs s3fs, ``gs://`` needs gcsfs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_pd.errors import MeasurementError, PdError
from pytest_pd.report.night import SUFFIX, Night, night_of, night_text, read_night
from pytest_pd.report.read import VERDICT_FILE, read_run, topology_folders
from pytest_pd.report.write import write_files


def read_nights(place: str) -> list[Night]:
    """Return all nights of a store, oldest first; a run counts once.

    Raises:
        MeasurementError: there is nothing in it, or something in it is no night.
        PdError: the store cannot be reached.
    """
    found = _remote(place) if "://" in place else _local(Path(place))
    nights = {night.run_id: night for night in found}
    if not nights:
        raise MeasurementError(
            f"{place!r} holds no night and no run.",
            hint="name a folder of runs, or add one: pytest-pd history STORE --add DIR",
        )
    return sorted(nights.values(), key=lambda night: (night.at, night.run_id))


def keep_night(place: str, night: Night) -> str:
    """Write a night into a store and return where.

    Raises:
        PdError: the store cannot be written.
    """
    if "://" not in place:
        (path,) = write_files(Path(place), {night.file_name: night_text(night)})
        return str(path)
    system, root = _open(place)
    target = f"{root.rstrip('/')}/{night.file_name}"
    try:
        system.makedirs(root, exist_ok=True)
        system.pipe_file(target, night_text(night).encode())
    except Exception as error:
        raise _unreachable(place, error) from error
    return f"{place.rstrip('/')}/{night.file_name}"


def _local(folder: Path) -> list[Night]:
    kept = [
        read_night(path.read_text(encoding="utf-8", errors="replace"), path.name)
        for path in sorted(folder.glob(f"*{SUFFIX}"))
    ]
    runs = [
        path
        for path in sorted(folder.glob("*/"))
        if (path / VERDICT_FILE).is_file() and topology_folders(path)
    ]
    return [*(night_of(read_run(path)) for path in runs), *kept]


def _remote(place: str) -> list[Night]:
    system, root = _open(place)
    try:
        names = [n for n in system.ls(root, detail=False) if str(n).endswith(SUFFIX)]
        pages = {str(name): system.cat_file(name) for name in sorted(names)}
    except FileNotFoundError:
        return []
    except Exception as error:
        raise _unreachable(place, error) from error
    return [
        read_night(page.decode("utf-8", "replace"), name)
        for name, page in pages.items()
    ]


def _open(place: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise PdError(
            f"{place!r} is an object store, which takes fsspec.",
            hint="pip install fsspec s3fs, or gcsfs, or name a folder",
        ) from error
    try:
        system, root = url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise _unreachable(place, error) from error
    return system, str(root)


def _unreachable(place: str, error: Exception) -> PdError:
    return PdError(
        f"Store {place!r} cannot be used: {type(error).__name__}: {error}",
        hint="check the address and the credentials of this process",
    )
