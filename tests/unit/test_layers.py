"""The direction of imports: no arrow goes back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "pytest_pd"

FOUNDATION = {"errors", "files", "registry", "secret", "group", "tied", "user"}
ALLOWED = {
    "errors": set(),
    "registry": {"errors"},
    "secret": set(),
    "files": set(),
    "group": {"tied"},
    "tied": set(),
    "user": {"errors"},
    "spec": FOUNDATION,
    "plan": FOUNDATION | {"spec"},
    "engines": FOUNDATION | {"spec", "plan"},
    "routers": FOUNDATION | {"spec", "plan", "engines"},
    "reference": {"errors"},
    "proxy": {"errors"},
    "installer": {"errors", "files", "user"},
    "provision": FOUNDATION
    | {"spec", "plan", "engines", "routers", "probe", "installer", "reference"},
    "probe": FOUNDATION | {"spec", "plan", "reference"},
    "load": FOUNDATION | {"spec"},
    "measure": FOUNDATION | {"spec", "load"},
    "report": FOUNDATION | {"spec", "plan", "probe", "load", "measure"},
}
"""Part to the parts it may import; parts not named here may import all below."""

ONLY_IN = {
    "pytest": ("plugin", "fixtures", "suites", "report/benchmark.py"),
    "fabric": ("provision/ssh",),
    "junitparser": ("report/junit",),
    "pytest_benchmark": ("report/benchmark.py",),
    "xdist": ("plugin/xdist.py",),
}
"""Third-party package to the places that may import it."""

PURE = ("spec", "plan", "engines", "routers", "measure")
IMPURE = {"subprocess", "httpx", "fabric", "asyncio", "socket", "aiohttp"}


def sources() -> list[Path]:
    return [p for p in sorted(PACKAGE.rglob("*.py")) if not _is_shipped_data(p)]


def _is_shipped_data(path: Path) -> bool:
    return path.relative_to(PACKAGE).parts[0] in ("fixtures", "suites")


def imports(path: Path) -> set[str]:
    """Return the modules a file imports when it runs, type checking left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def part_of(module: str) -> str | None:
    """Return the part of the package that a module belongs to."""
    words = module.split(".")
    return words[1] if words[0] == "pytest_pd" and len(words) > 1 else None


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_part_imports_only_what_is_below(part):
    files = [
        p for p in sources() if p.relative_to(PACKAGE).parts[0].split(".")[0] == part
    ]
    assert files, f"no files in {part}"

    backwards = {
        f"{path.relative_to(PACKAGE)} -> {module}"
        for path in files
        for module in imports(path)
        if (other := part_of(module)) and other not in ALLOWED[part] | {part}
    }

    assert not backwards


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_library_is_met_in_one_place(package):
    places = ONLY_IN[package]

    elsewhere = {
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(m.split(".")[0] == package for m in imports(path))
        and not str(path.relative_to(PACKAGE)).startswith(places)
    }

    assert not elsewhere


@pytest.mark.parametrize("part", PURE)
def test_pure_part_does_no_io(part):
    impure = {
        f"{path.relative_to(PACKAGE)} -> {module}"
        for path in (PACKAGE / part).rglob("*.py")
        for module in imports(path)
        if module.split(".")[0] in IMPURE
    }

    assert not impure


def test_nothing_imports_the_command_line():
    importers = [
        str(path.relative_to(PACKAGE))
        for path in sources()
        if "pytest_pd.cli" in imports(path)
    ]

    assert not importers
