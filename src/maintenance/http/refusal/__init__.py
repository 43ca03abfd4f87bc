"""The 503 that a refused request gets, as a plain value. It depends on no server and no framework."""

from maintenance.http.refusal.custom import complete_response
from maintenance.http.refusal.render import Refusals, render
from maintenance.http.refusal.response import Response
from maintenance.http.refusal.retry import DEFAULT_RETRY_AFTER, retry_after

__all__ = ["DEFAULT_RETRY_AFTER", "Refusals", "Response", "complete_response", "render", "retry_after"]
