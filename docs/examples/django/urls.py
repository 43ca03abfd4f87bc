"""A shop in Django. Superusers switch maintenance on and off at /admin/maintenance."""

import datetime as dt

from django import forms
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import path
from django.utils import timezone
from django.views.decorators.http import require_GET

from maintenance import maintenance_enabled, set_maintenance


class Switch(forms.Form):
    """What the form sends."""

    switch = forms.ChoiceField(choices=[("on", "on"), ("off", "off")])
    message = forms.CharField(max_length=10_000, required=False)
    minutes = forms.IntegerField(min_value=1, max_value=1440, required=False)


def maintenance(request):
    if not request.user.is_superuser:
        raise PermissionDenied
    form = Switch(request.POST or None)
    if not form.is_valid():
        context = {**admin.site.each_context(request), "form": form, "enabled": maintenance_enabled()}
        return render(request, "maintenance_form.html", context)
    asked, actor = form.cleaned_data, request.user.get_username()
    if asked["switch"] == "on":
        until = timezone.now() + dt.timedelta(minutes=asked["minutes"]) if asked["minutes"] else None
        set_maintenance(True, message=asked["message"] or None, until=until, actor=actor)
    else:
        set_maintenance(False, actor=actor)
    return redirect("maintenance")


@require_GET
def orders(request):
    return HttpResponse("Your orders")


urlpatterns = [
    path("orders", orders),
    # Before the admin's own pages. `admin_view` asks for the login of the admin, and checks the CSRF token.
    path("admin/maintenance", admin.site.admin_view(maintenance), name="maintenance"),
    path("admin/", admin.site.urls),
]
