from __future__ import annotations

from django.urls import path

from adapters.playground import views

urlpatterns = [
    path("", views.page, name="playground"),
    path("chats/", views.chats, name="playground-chats"),
    path("say/", views.say, name="playground-say"),
    path("press/", views.press, name="playground-press"),
    path("story/", views.tell, name="playground-story"),
    path("start-over/", views.start_over, name="playground-start-over"),
]
