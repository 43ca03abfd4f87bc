"""A real nginx in front of a server, if nginx is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.ports import accepts, free_port
from tests.support.postgres import private_folder
from tests.support.waiting import eventually

# As root, nginx would run its workers as an account that cannot reach its folder.
CONFIGURATION = """
daemon off;
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 100m;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_request_buffering {buffering};
            proxy_http_version 1.1;
        }}
    }}
}}
"""


@contextmanager
def nginx(upstream: int, *, buffering: str = "on") -> Iterator[int]:
    """The port of an nginx of its own, which passes requests on to a port."""
    # Debian installs it into a folder that is only on root's PATH.
    program = shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin")))
    if program is None:
        pytest.skip("no nginx is on the PATH: `apt-get install nginx-light`")
    with private_folder() as folder:
        port = free_port()
        (folder / "conf").write_text(
            CONFIGURATION.format(
                user="" if os.getuid() else "user root;",
                folder=folder,
                port=port,
                upstream=upstream,
                buffering=buffering,
            )
        )
        process = subprocess.Popen(
            [program, "-e", folder / "error.log", "-c", folder / "conf"], stdin=subprocess.DEVNULL
        )
        try:
            eventually(lambda: accepts(port), what=f"nginx on port {port}")
            yield port
        finally:
            process.terminate()
            process.wait(10)
