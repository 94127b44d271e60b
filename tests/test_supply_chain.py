"""The lock file of the dependencies: complete, with hashes, and from nowhere in particular."""

import re
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
LOCKED = re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)(.*(?:\n    --hash=\S+.*)*)", LOCK, re.MULTILINE)


def test_every_dependency_is_locked_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions: dict[str, list[str]] = {}
    for name, version, _ in LOCKED:
        versions.setdefault(canonicalize_name(name), []).append(version)
    for each in map(Requirement, project["dependencies"]):
        found = versions[canonicalize_name(each.name)]
        assert all(version in each.specifier for version in found), f"run make lock: {each}"


def test_every_file_has_a_hash_and_no_place() -> None:
    assert len(LOCKED) > 50
    assert len(LOCKED) == len(re.findall(r"^[a-z].*==", LOCK, re.MULTILINE))
    assert all("--hash=sha256:" in hashes for _, _, hashes in LOCKED)
    assert not re.search(r"://|--index|--find-links|@ |^-|/", LOCK, re.MULTILINE)
