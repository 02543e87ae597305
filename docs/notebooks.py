"""Pages with cells as notebooks that run elsewhere.

    python docs/notebooks.py            # writes those of notebooks/ anew, from their pages
    python docs/notebooks.py --check    # ends with 1 where one is not what its page gives

As a Sphinx extension it lets every such page be downloaded as a notebook: myst-nb leaves those that
it made of the pages beside the output. Modules of this folder that a page imports are written by a
cell of their own before the first that is run.
"""

import json
import re
import sys
from pathlib import Path

from myst_nb.core.read import read_myst_markdown_notebook
from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent / "notebooks"
KEPT = ("learn", "guidance", "fit", "your_data")
LINK = '<p class="notebook"><a href="{}" download>This page as a notebook</a></p>'
NEEDED = """fmjax has to be installed: `pip install -e '.[docs]'` in a clone. On Colab, with the
address of the repository in the place of ADDRESS: `%pip install 'fmjax[docs] @ git+ADDRESS'`."""


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


def of_page(page: str) -> str:
    """The text of the notebook of a page that has not been run."""
    notebook = read_myst_markdown_notebook((HERE / f"{page}.md").read_text())
    for number, cell in enumerate(notebook["cells"]):
        cell["id"] = f"cell-{number}"
    return json.dumps(portable(notebook), indent=1, ensure_ascii=False) + "\n"


def main(check: bool) -> int:
    """Writes the notebooks that are kept, or says which of them differ from their pages."""
    texts = {FOLDER / f"{page}.ipynb": of_page(page) for page in KEPT}
    if check:
        found = set(FOLDER.glob("*.ipynb"))
        other = [p for p, text in texts.items() if p not in found or p.read_text() != text]
        for path in [*other, *sorted(found - texts.keys())]:
            print(f"{path} is not what its page gives: run python docs/notebooks.py")
        return 1 if other or found - texts.keys() else 0
    FOLDER.mkdir(exist_ok=True)
    for path, text in texts.items():
        path.write_text(text)
    return 0


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("html-page-context", _link)
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
