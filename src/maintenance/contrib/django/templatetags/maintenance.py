"""``{% load maintenance %}``, then ``{% maintenance_banner %}``."""

from typing import Any

from django import template
from django.utils.translation import get_language

from maintenance.base.languages import parse_language
from maintenance.base.values import Snapshot
from maintenance.http.refusal.languages import choose_language
from maintenance.process.api import default_state

register = template.Library()


@register.inclusion_tag("maintenance/banner.html")
def maintenance_banner() -> dict[str, Any]:
    """Show the maintenance that is planned next, or nothing."""
    planned = default_state().upcoming()
    return {"planned": planned, "message": planned and _choose_message(planned)}


def _choose_message(planned: Snapshot) -> str | None:
    """Return the message in the language of the page, or else the first one."""
    wanted = parse_language(get_language() or "")
    offered = planned.messages or {}
    chosen = choose_language([wanted], offered) if wanted else None
    return offered[chosen] if chosen else planned.message
