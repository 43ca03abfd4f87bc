"""What a person does to a test's database by hand, over a connection of its own."""

from urllib.parse import urlsplit, urlunsplit

import psycopg


def run_sql(url: str, *statements: str) -> list[tuple]:
    """Run statements, each in its own transaction, and return the rows of the last one."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def flip(url: str, *, on: bool) -> None:
    """Change the flag with a plain UPDATE."""
    run_sql(url, f"UPDATE platform_settings SET value_bool = {on} WHERE key = 'maintenance_mode'")


def find_instances(url: str) -> dict[int, str]:
    """Return the id of each registered process by its pid."""
    rows = run_sql(url, "SELECT pid, id FROM maintenance_instances WHERE pid <> 0")
    return {pid: instance.hex for pid, instance in rows}


def change_port(url: str, port: int) -> str:
    """Return the URL of the same database through another port, such as a relay's."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))
