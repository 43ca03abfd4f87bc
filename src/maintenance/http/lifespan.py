"""Apps that do not support the ASGI lifespan. Nothing here needs an event loop, so a WSGI process may load it."""

stands_in = False
"""Whether the adapter answers the lifespan if the app raises before it asks for the first message.

Without a lifespan, uvicorn gives a process no chance to leave the fleet. A server may be asked to refuse an app that
raises, so the answer of the app itself is the default.
"""


def stand_in() -> None:
    """Answer the lifespan for apps that do not support it, in this process."""
    global stands_in  # noqa: PLW0603
    stands_in = True
