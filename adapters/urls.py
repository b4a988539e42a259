from __future__ import annotations

from django.urls import path
from django.utils.module_loading import import_string

from adapters import registry, views

urlpatterns = [
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("metrics", views.numbers),
    *(path(f"hooks/{name}", import_string(view)) for name, view in registry.webhooks().items()),
]
