from __future__ import annotations

from typing import Any

from django.urls import path

from identity.web.consumers import LiveConsumer

consumer: Any = LiveConsumer.as_asgi()  # Django's types know views alone
websocket_urlpatterns: list[Any] = [path("live/", consumer)]
