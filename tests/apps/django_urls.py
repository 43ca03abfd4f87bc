"""A few views, as a Django project has them."""

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path


def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"the app", headers={"X-App": "django", "X-Script": request.META.get("SCRIPT_NAME", "")})


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def parts() -> Iterator[bytes]:
        yield b"one,"
        yield b"two"

    return StreamingHttpResponse(parts())


urlpatterns = [path("", index), path("health", index), path("stream", stream)]
