"""The operators' pages: people and their accounts, links, requests and the audit log.

Nothing here makes a link. What changes something asks for its own permission, is a POST, and leaves an audit row.
"""

from __future__ import annotations

from identity.admin import accounts, audit, links, people, requests

__all__ = ["accounts", "audit", "links", "people", "requests"]
