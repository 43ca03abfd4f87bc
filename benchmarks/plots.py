"""The plots and tables of the documentation, from the results that are kept: ``python -m benchmarks draw``."""

from pathlib import Path
from typing import Final

from benchmarks import tables

IMAGES: Final = Path(__file__).parent.parent / "docs" / "images"


def run() -> None:
    """Draw what has been measured."""
    for name, svg in tables.plot().items():
        (IMAGES / f"{name}.svg").write_text(svg, encoding="utf-8")
        print(f"  drawn {name}.svg")
    tables.write()
