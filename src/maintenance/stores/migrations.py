"""The SQL files for PostgreSQL. They are in `maintenance/sql` in the wheel, and in `sql` in a checkout."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def migrations() -> tuple[tuple[str, str], ...]:
    """Every migration as (file name, SQL), in the order in which they are applied."""
    found = sorted((item for item in _folder().iterdir() if item.name.endswith(".sql")), key=lambda item: item.name)
    return tuple((item.name, item.read_text(encoding="utf-8")) for item in found)


def _folder() -> Traversable:
    packaged = files("maintenance") / "sql"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "sql"
