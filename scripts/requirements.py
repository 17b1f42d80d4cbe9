"""Print the requirements of fedsim itself, or of one extra (`requirements.py dev`)."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
print("\n".join(project["optional-dependencies"][sys.argv[1]] if sys.argv[1:] else project["dependencies"]))
