"""What machines ask: whether the process lives, whether it works, and how much."""

from __future__ import annotations

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from adapters.monitoring import metrics
from adapters.runtime import health


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """The process lives."""
    return JsonResponse({"alive": True})


@require_safe
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """The process works; 503 and why, if not."""
    reasons = health.reasons_against()
    return JsonResponse({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)


@require_safe
@never_cache
def numbers(request: HttpRequest) -> HttpResponse:
    """For Prometheus, if it has the token."""
    if not settings.BOTOS_METRICS_TOKEN:
        raise Http404
    if not constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {settings.BOTOS_METRICS_TOKEN}"):
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    return HttpResponse(metrics.exposition(), content_type=metrics.CONTENT_TYPE)
