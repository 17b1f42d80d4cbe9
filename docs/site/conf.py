"""Settings of the documentation site; `make docs` gathers its pages (scripts/documentation.py) and builds it."""

import fedsim

project = "fedsim"
author = "the fedsim authors"
copyright = f"2026, {author}"  # noqa: A001  # Sphinx reads this name
release = fedsim.__version__
version = release
extensions = ["myst_nb", "sphinx_copybutton"]
html_theme = "furo"
html_title = f"fedsim {release}"
html_static_path = ["_static"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sourcelink = False
myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 4
nb_execution_mode = "off"
"""Notebooks come with their outputs: `make notebooks` executes them, once for the tests and for the site."""
copybutton_prompt_text = "$ "
exclude_patterns: list[str] = []
