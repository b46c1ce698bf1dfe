"""`bodyreg view`: a result folder in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["VIEW_EXAMPLES", "view"]

VIEW_EXAMPLES = """Examples:

bodyreg view results

bodyreg view results --no-open
"""


def view(
    results: Annotated[Path, typer.Argument(help="Folder that `bodyreg infer` or `bodyreg refine` wrote.")],
    browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it, or only print where it is.")] = True,
) -> None:
    """Look at a result folder in the browser: pictures, bodies in 3D, parameters, refused files."""
    import webbrowser

    from bodyreg.inference.page import PAGE, write_page

    try:
        page = write_page(results)  # anew, so that an interrupted run shows what is finished
    except OSError:
        page = results / PAGE
        if not page.is_file():
            raise
    typer.echo(str(page))
    if browser and not webbrowser.open(page.resolve().as_uri()):
        typer.echo("No browser could be started. Open this file in one.", err=True)
