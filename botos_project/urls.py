from __future__ import annotations

from django.apps import apps
from django.contrib import admin
from django.urls import include, path

# The pages of django-rq want tables and inline scripts; /metrics and the doctor tell what waits.
if apps.is_installed("django_rq"):
    admin.site.unregister(filter(admin.site.is_registered, apps.get_app_config("django_rq").get_models()))

handler500 = "botos_project.failures.failed"

urlpatterns = [
    path("", include("identity.urls")),
    path("chat/", include("sessions_app.web.chat_urls")),
    path("me/", include("sessions_app.web.urls")),
    path("", include("adapters.urls")),
    path("admin/", admin.site.urls),
    path("playground/", include("adapters.playground.urls")),
]
