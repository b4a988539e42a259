"""Django's admin application with our site. It is loaded before any model."""

from __future__ import annotations

from django.contrib.admin.apps import AdminConfig


class LimitedAdminConfig(AdminConfig):
    default_site = "identity.admin_site.LimitedAdminSite"
