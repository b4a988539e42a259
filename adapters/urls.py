from __future__ import annotations

from django.urls import path

from adapters import views, webhooks

urlpatterns = [
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("metrics", views.numbers),
    path("hooks/telegram", webhooks.telegram),
    path("hooks/slack", webhooks.slack),
]
