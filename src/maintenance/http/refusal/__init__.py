"""The 503 that a refused request gets, as a plain value. It depends on no server and no framework."""

from maintenance.http.refusal.custom import complete_response
from maintenance.http.refusal.page import Page, check_page
from maintenance.http.refusal.render import Refusals, Renderer
from maintenance.http.refusal.response import MODE_HEADER, Response
from maintenance.http.refusal.retry import DEFAULT_RETRY_AFTER, retry_after

__all__ = [
    "DEFAULT_RETRY_AFTER",
    "MODE_HEADER",
    "Page",
    "Refusals",
    "Renderer",
    "Response",
    "check_page",
    "complete_response",
    "retry_after",
]
