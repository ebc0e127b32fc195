"""What is missing for a topology on a machine without a network? Asks nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pytest_pd.bundle.book import WHEELS, model_folder, trace_file
from pytest_pd.bundle.need import Need
from pytest_pd.bundle.wheels import SELF, missing_for
from pytest_pd.installer.install import marker
from pytest_pd.installer.recipe import Pip, get
from pytest_pd.provision.base import Finding

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "*.tiktoken", "vocab.json")


def look(need: Need, root: Path) -> Iterator[Finding]:
    """Yield one finding for each thing that the topologies need."""
    for model in need.models:
        yield _model(model, model_folder(root, model))
    for folder in need.folders:
        yield _folder(folder)
    for trace in need.traces:
        yield _trace(trace, root)
    yield _installable(SELF, root)
    for name in need.engines:
        yield _engine(name, root)
    for name in need.by_hand:
        yield Finding(
            f"engine {name}",
            None,
            "no recipe of pytest-pd installs it for this hardware",
            "pip wheel it on a machine with a network, or give engine.image",
        )
    for image in need.images:
        yield Finding(
            f"image {image}",
            None,
            "no registry is asked",
            "load it on every node: images.txt has all names",
        )
    for task in need.evals:
        yield Finding(
            f"eval {task}",
            None,
            "its data comes from the hub",
            "lay it out below a folder and name that as data: of the eval file",
        )


def _model(model: str, folder: Path) -> Finding:
    what = f"tokenizer of {model}"
    found = [p.name for pattern in TOKENIZERS for p in folder.glob(pattern)]
    if found and (folder / "config.json").is_file():
        return Finding(what, True, f"{', '.join(found)} in {folder}")
    return Finding(
        what, False, f"no tokenizer and config.json in {folder}", "pytest-pd fetch"
    )


def _folder(folder: str) -> Finding:
    if Path(folder).is_dir():
        return Finding(f"model {folder}", True, "is on this machine")
    return Finding(
        f"model {folder}", None, "is not on this machine; the nodes must have it"
    )


def _trace(trace: Path, root: Path) -> Finding:
    found = next((p for p in (trace, trace_file(root, trace)) if p.is_file()), None)
    if found:
        return Finding(f"data {trace.name}", True, str(found))
    return Finding(
        f"data {trace.name}", False, "is nowhere here", f"bring it to {trace}"
    )


def _installable(requirement: str, root: Path) -> Finding:
    why = missing_for(requirement, root / WHEELS)
    said = why or "pip can install it from the bundle alone"
    hint = "pytest-pd fetch, with the Python of that site" if why else ""
    return Finding(f"wheels of {requirement}", not why, said, hint)


def _engine(name: str, root: Path) -> Finding:
    recipe = get(name)
    if marker(recipe):
        return Finding(f"engine {name}", True, f"{recipe.version} is installed")
    steps = [step for step in recipe.steps if isinstance(step, Pip) and step.deps]
    for step in steps:
        for package in step.packages:
            if why := missing_for(package, root / WHEELS):
                return Finding(f"engine {name}", False, why, "pytest-pd fetch")
    return Finding(
        f"engine {name}",
        True,
        "its wheels are here",
        f"PIP_NO_INDEX=1 PIP_FIND_LINKS={root / WHEELS} pytest-pd engines install "
        f"{name}",
    )
