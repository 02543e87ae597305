"""How the documentation is built.

    pip install -e '.[docs]'
    sphinx-build -W --keep-going -b html docs docs/_build

Every code cell runs on the CPU at each build, and a cell that raises stops it. Nothing is fetched,
unless READTHEDOCS is set.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# The package and the pages' own helpers are found without being installed, here and in the kernels.
sys.path[:0] = [str(ROOT), str(HERE)]
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import fmjax  # noqa: E402

project = "fmjax"
copyright = "the fmjax authors"
release = version = fmjax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",  # [source]
    "sphinx_copybutton",
    "sphinx-mathjax-offline",  # formulas without the network
    "docstrings",
    "notebooks",
]
if os.environ.get("READTHEDOCS"):  # names of other packages lead to their pages: needs the network
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "diffrax": ("https://docs.kidger.site/diffrax", None),
    "flax": ("https://flax.readthedocs.io/en/latest", None),
    "jax": ("https://docs.jax.dev/en/latest", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "optax": ("https://optax.readthedocs.io/en/latest", None),
    "python": ("https://docs.python.org/3", None),
}
exclude_patterns = ["_build", "jupyter_execute", ".jupyter_cache"]

html_theme = "furo"
html_title = "fmjax"
html_static_path = ["_static"]
html_css_files = ["fmjax.css"]
# A picture is as wide as the text at most, and a click opens nothing.
html_scaled_image_link = False

# Pages: MyST Markdown, with $...$ and $$...$$ for mathematics.
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# Cells.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
nb_render_image_options = {"width": "100%"}

# Docstrings. A lone `name` is a Python object where there is one of that name.
default_role = "py:obj"
smartquotes_action = "D"  # dashes only: quotes and dots belong to code
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90
