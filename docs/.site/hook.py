"""Orders the pages by folder, and takes the pages beside ``docs/`` into the site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CONTRIBUTING.md": "explanation/contributing.md",
    "SECURITY.md": "explanation/security.md",
}
SECTIONS = {
    "Tutorial": "tutorial/*.md",
    "How-to": "how-to/*.md",
    "Coming from your scripts": "how-to/from-*.md",
    "Reference": "reference/*.md",
    "Explanation": "explanation/*.md",
}
"""Title in the menu to the pages below it, which are named by their headings."""


def on_config(config: Any) -> Any:
    """Make the menu: a new page is in it without being written down here."""
    docs = Path(config["docs_dir"])
    menu: list[Any] = ["index.md"]
    for title, pattern in SECTIONS.items():
        found = [path.relative_to(docs).as_posix() for path in docs.glob(pattern)]
        is_seed = "from-" in pattern
        pages = [page for page in sorted(found) if ("/from-seed" in page) is is_seed]
        extra = [at for at in PAGES.values() if at.startswith(title.lower())]
        menu.append({title: [*extra, *pages]})
    config["nav"] = menu
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages; links between them are in the same folder here."""
    for name, place in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for other, at in PAGES.items():
            text = text.replace(f"]({other})", f"]({Path(at).name})")
        text = text.replace("](docs/", "](../")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links that leave ``docs/`` to the copies."""
    for name, place in PAGES.items():
        markdown = markdown.replace(f"](../{name})", f"]({place})")
        markdown = markdown.replace(f"](../../{name})", f"](../{place})")
    return markdown
