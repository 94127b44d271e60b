"""Hooks of mkdocs: pages that lie outside of docs/, links that work here as in the checkout."""

import posixpath
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.structure.files import File, Files

from fauno_flwr.config.reference import markdown

ROOT = Path(__file__).parents[1]
# Page of the site -> its source in the repository.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "examples/index.md": "examples/README.md",
    **{
        f"examples/{name}.md": f"examples/{name}/README.md"
        for name in ("quickstart", "logistic", "logged", "private", "personal", "boosted")
    },
    "examples/cartpole.md": "examples/cartpole/README.md",
    "examples/reuse.md": "examples/reuse/README.md",
    "examples/search.md": "examples/search/README.md",
}
_LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")
_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
_LITERAL_BLOCK = re.compile(r"::$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside of docs/, and that of the settings."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    files.append(File.generated(config, "reference/settings.md", content=markdown()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    uri = page.file.src_uri
    source = PAGES.get(uri, f"docs/{uri}")
    pages = {path: name for name, path in PAGES.items()}

    def rewrite(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[1]))
        if (ROOT / target).is_dir():
            target += "/README.md"
        inside = pages.get(target, target.removeprefix("docs/"))
        return posixpath.relpath(inside, posixpath.dirname(uri) or ".")

    return _LINK.sub(rewrite, markdown)


class PlainDocstrings(Extension):
    """Turn the roles and literal blocks of reStructuredText in docstrings into Markdown."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of a module below the package, class, function or attribute."""
        if obj.docstring:
            text = _ROLE.sub(r"`\1`", obj.docstring.value)
            obj.docstring.value = _LITERAL_BLOCK.sub(":", text)

    def on_package(self, *, pkg: Object, **_: Any) -> None:
        """Rewrite the docstring of a package."""
        self.on_object(obj=pkg)
