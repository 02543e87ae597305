"""What a package index, a citation and a clone say of fmjax agrees."""

import re
import tomllib

import fmjax
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines):
    """Names with bounds, without comments and blanks; fmjax's own extras are left out."""
    found = {re.sub(r"\s|#.*", "", line) for line in lines}
    return {line for line in found if line and not line.startswith("fmjax")}


def test_the_version_is_one():
    cited = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M)
    assert PROJECT["version"] == fmjax.__version__ == cited[1]


def test_a_clone_installs_what_the_extras_name():
    extras = PROJECT["optional-dependencies"]
    wanted = requirements([*PROJECT["dependencies"], *extras["train"], *extras["test"]])
    assert requirements((ROOT / "requirements.txt").read_text().splitlines()) == wanted
