"""Stage what is published beside ``fauno-flwr`` itself, each in a folder of its own.

``python release/stage.py strategies FOLDER`` assembles the distribution ``fauno-strategies``.
``python release/stage.py hub FOLDER`` assembles the app as Flower Hub takes it.

Their readmes are pages of ``docs/``, whose links lead elsewhere in the repository. With the address
of its files (``https://github.com/OWNER/NAME/blob/main``) as a third argument links and images are
absolute; without it links are their text, and images are left out.
"""

import posixpath
import re
import shutil
import sys
from pathlib import Path

from fauno_flwr.deployment.engine import stage_app

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^]]*)\]\((?P<target>[^)\s]+)\)")


def standalone(page: str, address: str = "") -> str:
    """Return the text of a page that is read outside of the repository.

    Parameters
    ----------
    page : str
        Path of a Markdown file in the repository.
    address : str
        Where its files are shown, without a slash at the end; empty: nowhere.
    """

    def rewrite(link: re.Match[str]) -> str:
        target = link["target"]
        if re.match(r"\w+:|#", target):
            return link[0]
        if not address:
            return "" if link["image"] else link["text"]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        raw = "?raw=true" if link["image"] else ""  # the picture, not a page that shows it
        return f"{link['image']}[{link['text']}]({address}/{path}{raw})"

    text = (ROOT / page).read_text(encoding="utf-8")
    # Blocks of code stay as they are.
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    parts[::2] = [_LINK.sub(rewrite, part) for part in parts[::2]]
    return "".join(parts)


def stage_strategies(folder: Path, address: str = "") -> None:
    """Assemble the distribution of ``strategies`` alone; `folder` must not exist."""
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "strategies", folder / "strategies", ignore=skipped)
    shutil.copy(ROOT / "release" / "strategies" / "pyproject.toml", folder)
    shutil.copy(ROOT / "LICENSE", folder)
    readme = standalone("docs/strategies.md", address)
    (folder / "README.md").write_text(readme, encoding="utf-8")


def stage_hub(folder: Path, address: str = "") -> None:
    """Assemble the app as Flower Hub takes it; `folder` must not exist."""
    stage_app(folder)
    (folder / "README.md").write_text(standalone("docs/hub.md", address), encoding="utf-8")


if __name__ == "__main__":
    kinds = {"strategies": stage_strategies, "hub": stage_hub}
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in kinds:
        sys.exit(f"usage: {sys.argv[0]} {'|'.join(kinds)} FOLDER [ADDRESS]")
    kinds[sys.argv[1]](Path(sys.argv[2]), *(each.rstrip("/") for each in sys.argv[3:]))
