"""/api/v1: everything that is not the distribution API. One file a subject; errors have the same form as there.

Who may do what is the table at the head of each file.
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from registry.api.control import (
    accounts,
    advisories,
    audit,
    collections,
    credentials,
    images,
    rules,
    running,
    statements,
    trust,
)

BLUEPRINTS: Final[tuple[Blueprint, ...]] = (
    statements.blueprint,
    trust.blueprint,
    images.blueprint,
    audit.blueprint,
    advisories.blueprint,
    accounts.blueprint,
    credentials.blueprint,
    rules.blueprint,
    collections.blueprint,
    running.blueprint,
)
"""All of it, for the application."""
