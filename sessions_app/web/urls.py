from __future__ import annotations

from django.urls import path

from sessions_app.web import views

urlpatterns = [
    path("", views.me, name="me"),
    path("now/", views.now, name="me-now"),
    path("history/", views.history, name="me-history"),
    path("search/", views.search_for, name="me-search"),
    path("export/", views.export_all, name="me-export"),
    path("export/parts/", views.export_parts, name="me-export-parts"),
    path("forget/", views.forget, name="me-forget"),
    path("forget/ask/", views.forget_ask, name="me-forget-ask"),
    path("forget/number/", views.forget_confirm, name="me-forget-number"),
    path("share/", views.share, name="me-share"),
    path("unlink/", views.unlink, name="me-unlink"),
    path("not-me/", views.was_not_me, name="me-not-me"),
    path("prefer/", views.prefer, name="me-prefer"),
    path("sign-out/", views.sign_out_everywhere, name="me-sign-out"),
]
