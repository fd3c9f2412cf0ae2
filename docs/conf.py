"""The site: `uv run --group docs sphinx-build -W docs docs/_build/site`, then open docs/_build/site/index.html."""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import jointgen

sys.path.append(str(Path(__file__).parent))

project = "jointgen"
author = "the authors of jointgen"
version = release = jointgen.__version__
html_title = f"jointgen {version}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_external_toc",
    "_ext.docstrings",
    "_ext.drawings",
    "_ext.formulas",
    "_ext.generated",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"
pygments_style, pygments_dark_style = "tango", "monokai"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 4
myst_fence_as_directive = {"mermaid"}
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90

# Notebooks run while the site is built, again only where they have changed, and an error in one ends the build.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds for each cell
nb_merge_streams = True
nb_execution_in_temp = True

# A notebook's kernel starts as docs/_ext/ipython says, in a folder of its own, as IPython writes beside it. Threads
# are few because notebooks run side by side.
kernels = tempfile.mkdtemp(prefix="jointgen-docs-")
atexit.register(shutil.rmtree, kernels, ignore_errors=True)
shutil.copytree(Path(__file__).parent / "_ext/ipython", kernels, dirs_exist_ok=True)
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # for `!jointgen`
os.environ |= {"IPYTHONDIR": kernels, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "110"}
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # of tqdm, without ipywidgets
nb_render_markdown_format = "gfm"
