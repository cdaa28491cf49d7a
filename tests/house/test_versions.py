"""`make` installs fixed versions."""

from configparser import ConfigParser

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.documents import ROOT


def test_each_requirement_has_a_fixed_version() -> None:
    """scripts/constraints.txt has a version that setup.cfg allows; after a new requirement, run `make constraints`."""
    lines = (ROOT / "scripts" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    versions = dict(line.split("==") for line in lines if not line.startswith("#"))
    versions = {canonicalize_name(name): version for name, version in versions.items()}
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lists = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    requirements = [Requirement(line) for text in lists for line in text.split("\n") if line]
    assert len(requirements) > 20
    for one in requirements:
        assert one.specifier.contains(versions.get(canonicalize_name(one.name), "")), one
