"""A Sphinx extension: every page with cells can be downloaded as a notebook that runs elsewhere.

myst-nb leaves the notebooks that it made of the pages beside the output. Modules of this folder
that a page imports are written by a cell of their own before the first that is run.
"""

import json
import re
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
LINK = '<p class="notebook"><a href="{}" download>This page as a notebook</a></p>'
NEEDED = """fmjax has to be installed: `pip install -e '.[docs]'` in a clone."""


def _helpers(cells: list[dict]) -> list[str]:
    """The modules of this folder that cells import."""
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    found = re.findall(r"^(?:from|import) (\w+)", source, re.M)
    return [name for name in dict.fromkeys(found) if (HERE / f"{name}.py").exists()]


def portable(notebook: dict) -> dict:
    """A notebook that says what it needs and brings the modules that it imports."""
    cells = notebook["cells"]
    first = [{"cell_type": "markdown", "metadata": {}, "source": NEEDED}]
    for name in _helpers(cells):
        source = f"%%writefile {name}.py\n{(HERE / f'{name}.py').read_text()}"
        code = {"cell_type": "code", "execution_count": None, "outputs": [], "metadata": {}}
        first.append(code | {"source": source})
    for number, cell in enumerate(first):
        cell["id"] = f"first-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook | {"cells": first + cells, "metadata": {"kernelspec": kernel}}


def _has_cells(app: Sphinx, page: str) -> bool:
    return "{code-cell}" in Path(app.env.doc2path(page)).read_text()


def _link(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    if doctree is not None and _has_cells(app, page):
        up = "../" * page.count("/")
        context["body"] += LINK.format(f"{up}notebooks/{page}.ipynb")


def _write(app: Sphinx, error: Exception | None) -> None:
    made = Path(app.outdir).parent / "jupyter_execute"
    if error is not None or app.builder.format != "html":
        return
    for page in app.env.found_docs:
        if _has_cells(app, page):
            notebook = json.loads((made / f"{page}.ipynb").read_text())
            path = Path(app.outdir) / "notebooks" / f"{page}.ipynb"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(portable(notebook)))


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("html-page-context", _link)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
