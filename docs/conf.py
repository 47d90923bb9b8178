"""The documentation site. Build it with: python -m sphinx -W docs docs/_build."""

import importlib.metadata

project = "kdlab"
author = "the kdlab authors"
release = importlib.metadata.version("kdlab")
html_title = f"kdlab {release}"
html_theme = "furo"
exclude_patterns = ["_build", "examples"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
napoleon_numpy_docstring = False
napoleon_use_ivar = True
toc_object_entries = False  # each page would copy them: minutes
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
nitpicky = False  # types of torch and Lightning have no pages here
