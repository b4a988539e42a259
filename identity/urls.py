from __future__ import annotations

from django.urls import path

from identity.web import views

urlpatterns = [
    path("", views.home, name="home"),
    path("pair/", views.pair, name="pair"),
    path("pair/now/", views.pair_now, name="pair-now"),
    path("pair/start/", views.start, name="pair-start"),
    path("pair/code/", views.code, name="pair-code"),
    path("pair/number/", views.number, name="pair-number"),
    path("pair/cancel/", views.cancel, name="pair-cancel"),
    path("pair/not-me/", views.not_me, name="pair-not-me"),
    path("pair/link/", views.link_two, name="pair-link"),
    path("pair/undo/", views.undo, name="pair-undo"),
    path("sign-out/", views.sign_out, name="sign-out"),
]
