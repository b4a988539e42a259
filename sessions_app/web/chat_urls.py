from __future__ import annotations

from django.urls import path

from sessions_app.web import chat_views

urlpatterns = [
    path("", chat_views.chat, name="chat"),
    path("now/", chat_views.now, name="chat-now"),
    path("say/", chat_views.say, name="chat-say"),
]
