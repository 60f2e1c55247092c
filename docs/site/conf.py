"""Sphinx's settings. Everything is local: no font, script or inventory is fetched, neither here nor by a reader."""

from __future__ import annotations

from clinenv import __version__

project = "clinenv"
author = "The clinenv authors"
project_copyright = "The clinenv authors, Apache-2.0"
release = version = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "docs.site.docstrings",
    "docs.site.mathml",
]
html_math_renderer = "mathml"
myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist", "deflist"]
myst_dmath_allow_digits = myst_dmath_allow_space = False  # $10 and $20 are prices
myst_heading_anchors = 4
default_role = "literal"
exclude_patterns = ["data/*", "**.ipynb_checkpoints"]

# Executed once for each text of a notebook; one that fails, or whose cell takes longer than this (s), stops the build
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_output_stderr = "remove"  # progress bars

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# Every reference must be found; for what annotations mention see `docs.site.docstrings`
nitpicky = True

html_theme = "furo"
html_title = "clinenv"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "announcement": "Research software. Patients are simulated. <strong>Not for clinical use.</strong>",
    "navigation_with_keys": True,
}
