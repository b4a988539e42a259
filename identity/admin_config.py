"""The admin as an application of the project: Django's, with our site. It is loaded before any model."""

from __future__ import annotations

from django.contrib.admin.apps import AdminConfig


class LimitedAdminConfig(AdminConfig):
    default_site = "identity.admin_site.LimitedAdminSite"
