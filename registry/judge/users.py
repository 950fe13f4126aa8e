"""Who the config's `User` is: `policy/users.py`, which hosts use as well, so that both find the same one."""

from __future__ import annotations

from policy.users import MAX_FILE, resolve_user

__all__ = ["MAX_FILE", "resolve_user"]
