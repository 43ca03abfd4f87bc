"""What a request gets: who is admitted, what a refusal looks like, and how WSGI and ASGI carry it."""
