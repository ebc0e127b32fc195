"""Images imported once to a squashfs file on the shared file system.

Without it every node of every job pulls and unpacks the image by itself, minutes
each time, and a tag may mean something else tomorrow.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from pytest_pd.errors import ProvisionError
from pytest_pd.provision.slurm_client import SlurmClient, last_line
from pytest_pd.spec.site_slurm import SlurmSite

IMPORT_S = 3600.0

IMPORT = """\
set -e
mkdir -p "$(dirname "$path")"
exec 9>"$path.lock"
flock 9
if [ ! -s "$path" ]; then
  part=$path.partial
  rm -f "$part"
  enroot import --output "$part" "$source" >&2
  sha256sum "$part" | cut -d' ' -f1 >"$path.sha256"
  mv "$part" "$path"
fi
cat "$path.sha256"
"""
"""Imports under a lock, so that runs which start together import once; a file that
is there is whole, for it got its name last."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image as a file.

    Attributes:
        path: Squashfs file that every node sees.
        sha256: Digest of the file.
    """

    path: str
    sha256: str


def is_registry(image: str) -> bool:
    """Tell whether an image has to be pulled; a path is a file already."""
    return not image.startswith(("/", "./"))


def squash_path(folder: str, image: str) -> str:
    """Return the file of an image: its name, with what no file name holds replaced."""
    return f"{folder.rstrip('/')}/{re.sub(r'[^A-Za-z0-9.-]+', '_', image)}.sqsh"


def import_script(image: str, path: str) -> str:
    """Return the POSIX sh lines that import `image` unless the file is there."""
    source = image if "://" in image else f"docker://{image}"
    return f"path={shlex.quote(path)} source={shlex.quote(source)}\n{IMPORT}"


def import_argv(site: SlurmSite, job: str, host: str, script: str) -> tuple[str, ...]:
    """Return the ``srun`` words that run an import on one node of the job."""
    return (
        *("srun", f"--jobid={job}", "--overlap", "--nodes=1", "--ntasks=1"),
        *(f"--nodelist={host}", "--job-name=pd-image", "--export=ALL"),
        *([] if site.gpus_by == "none" else ["--gres=none"]),
        *("sh", "-c", script),
    )


def imported(
    client: SlurmClient, site: SlurmSite, job: str, host: str, image: str
) -> ImageFile:
    """Import an image on one node of the job, unless it was before.

    Raises:
        ProvisionError: ``enroot import`` fails; with its last words.
    """
    assert site.container is not None
    assert site.container.import_to is not None
    path = squash_path(site.container.import_to, image)
    argv = import_argv(site, job, host, import_script(image, path))
    done = client.run(*argv, within_s=IMPORT_S)
    if done.returncode:
        raise ProvisionError(
            f"Image {image!r} cannot be imported on {host}: {last_line(done.stderr)}",
            hint="import it by hand (enroot import) and name the file, or drop "
            "slurm.container.import_to",
            where=Path(path),
        )
    return ImageFile(path, done.stdout.split()[-1])
