"""Who gets which answer on each route (R6): the table that tests/registry/test_idor.py compares the application with.

Each line reads `status actors | status actors`; `*` are all other known accounts. Whoever is not known gets 401
everywhere but on the routes in OPEN. Places are those of tests/registry/routes.py, accounts those of world.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

GROUPS: Final = {
    "pushers": "pusher creator person token",
    "movers": "pusher mover person token",
    "deleters": "pusher deleter person token",
    "tokens": "token pull-token other-token",
    "outsiders": "pull-token other-token",
}
"""Names for several accounts in one repository of theirs."""

OPEN: Final = {
    "health.healthz GET": 200,
    "health.readyz GET": 200,
}
"""Routes that answer whoever asks, and what."""

ALIKE: Final = (
    ("foreign-unknown", "foreign"),
    ("foreign-unknown", "twin"),
    ("own-unknown", "borrowed"),
    ("unknown", "anothers"),
    ("unknown", "misplaced"),
    ("borrowed-unknown", "borrowed"),
    ("borrowed-anywhere", "borrowed"),
)
"""Places whose answers an account that may not know of the second cannot tell apart, by not one letter."""

RIGHTS: Final[Mapping[str, Mapping[str, str]]] = {
    "base.version GET": {
        "any": "200 *",
    },
    "health.healthz GET": {
        "any": "200 *",
    },
    "health.readyz GET": {
        "any": "200 *",
    },
    "catalog.get_catalog GET": {
        "any": "401 tokens | 200 *",
    },
    "tags.get_tags GET": {
        "own": "401 other-token | 404 creator deleter admin stranger | 200 *",
        "own-unknown": "401 other-token | 404 *",
        "foreign": "200 stranger | 404 *",
        "foreign-unknown": "404 *",
    },
    "blobs.get_blob GET": {
        "own": "401 other-token | 404 creator deleter admin stranger | 200 *",
        "own-unknown": "401 other-token | 404 *",
        "foreign": "200 stranger | 404 *",
        "foreign-unknown": "404 *",
        "borrowed": "401 other-token | 404 *",
    },
    "blobs.delete_blob DELETE": {
        "own": "202 deleters | 401 outsiders | 404 creator admin stranger | 403 *",
        "own-unknown": "401 outsiders | 403 mover puller host scanner officer auditor | 404 *",
        "foreign": "202 stranger | 404 *",
        "foreign-unknown": "404 *",
        "borrowed": "401 outsiders | 403 mover puller host scanner officer auditor | 404 *",
    },
    "manifests.get_manifest GET": {
        "own": "401 other-token | 404 creator deleter admin stranger | 200 *",
        "own-unknown": "401 other-token | 404 *",
        "foreign": "200 stranger | 404 *",
        "foreign-unknown": "404 *",
        "borrowed": "401 other-token | 404 *",
    },
    "manifests.put_manifest PUT": {
        "own": "201 pushers | 401 outsiders | 403 *",
        "own-unknown": "400 pushers | 401 outsiders | 403 *",
        "foreign": "201 stranger | 403 *",
        "foreign-unknown": "400 stranger | 403 *",
    },
    "manifests.put_manifest PUT, a tag that is there": {
        "own": "201 movers | 401 outsiders | 403 *",
        "own-unknown": "400 pushers | 401 outsiders | 403 *",
        "foreign": "201 stranger | 403 *",
        "foreign-unknown": "400 stranger | 403 *",
    },
    "manifests.put_manifest PUT, tags by query": {
        "own": "201 movers | 401 outsiders | 403 *",
        "own-unknown": "400 pushers | 401 outsiders | 403 *",
        "foreign": "201 stranger | 403 *",
        "foreign-unknown": "400 stranger | 403 *",
    },
    "manifests.put_manifest PUT, an artifact": {
        "own": "201 pushers | 401 outsiders | 403 *",
        "own-unknown": "400 pushers | 401 outsiders | 403 *",
        "foreign": "201 stranger | 403 *",
        "foreign-unknown": "400 stranger | 403 *",
    },
    "manifests.delete_manifest DELETE": {
        "own": "202 deleters | 401 outsiders | 404 creator admin stranger | 403 *",
        "own-unknown": "401 outsiders | 403 mover puller host scanner officer auditor | 404 *",
        "foreign": "202 stranger | 404 *",
        "foreign-unknown": "404 *",
        "borrowed": "401 outsiders | 403 mover puller host scanner officer auditor | 404 *",
    },
    "manifests.delete_manifest DELETE, a tag": {
        "own": "202 deleters | 401 outsiders | 404 creator admin stranger | 403 *",
        "own-unknown": "401 outsiders | 403 mover puller host scanner officer auditor | 404 *",
        "foreign": "202 stranger | 404 *",
        "foreign-unknown": "404 *",
    },
    "referrers.get_referrers GET": {
        "own": "401 other-token | 404 creator deleter admin stranger | 200 *",
        "own-unknown": "401 other-token | 404 creator deleter admin stranger | 200 *",
        "foreign": "200 stranger | 404 *",
        "foreign-unknown": "200 stranger | 404 *",
        "borrowed": "401 other-token | 404 creator deleter admin stranger | 200 *",
    },
    "uploads.begin_upload POST": {
        "own": "202 pushers | 401 outsiders | 403 *",
        "own-unknown": "202 pushers | 401 outsiders | 403 *",
        "foreign": "202 stranger | 403 *",
        "foreign-unknown": "202 stranger | 403 *",
    },
    "uploads.begin_upload POST, whole": {
        "own": "201 pushers | 401 outsiders | 403 *",
        "own-unknown": "201 pushers | 401 outsiders | 403 *",
        "foreign": "201 stranger | 403 *",
        "foreign-unknown": "201 stranger | 403 *",
    },
    "uploads.begin_upload POST, a mount": {
        "own": "201 pusher person | 202 creator | 401 tokens | 403 *",
        "borrowed": "202 pushers | 401 outsiders | 403 *",
        "borrowed-unknown": "202 pushers | 401 outsiders | 403 *",
        "borrowed-anywhere": "202 pusher creator person | 401 tokens | 403 *",
    },
    "uploads.upload_status GET": {
        "own": "204 pushers | 401 outsiders | 403 *",
        "anothers": "401 outsiders | 404 pushers | 403 *",
        "misplaced": "401 outsiders | 404 pushers | 403 *",
        "unknown": "401 outsiders | 404 pushers | 403 *",
        "foreign": "204 stranger | 403 *",
        "foreign-unknown": "404 stranger | 403 *",
    },
    "uploads.append_upload PATCH": {
        "own": "202 pushers | 401 outsiders | 403 *",
        "anothers": "401 outsiders | 404 pushers | 403 *",
        "misplaced": "401 outsiders | 404 pushers | 403 *",
        "unknown": "401 outsiders | 404 pushers | 403 *",
        "foreign": "202 stranger | 403 *",
        "foreign-unknown": "404 stranger | 403 *",
    },
    "uploads.finish_upload PUT": {
        "own": "201 pushers | 401 outsiders | 403 *",
        "anothers": "401 outsiders | 404 pushers | 403 *",
        "misplaced": "401 outsiders | 404 pushers | 403 *",
        "unknown": "401 outsiders | 404 pushers | 403 *",
        "foreign": "201 stranger | 403 *",
        "foreign-unknown": "404 stranger | 403 *",
    },
    "uploads.cancel_upload DELETE": {
        "own": "204 pushers | 401 outsiders | 403 *",
        "anothers": "401 outsiders | 404 pushers | 403 *",
        "misplaced": "401 outsiders | 404 pushers | 403 *",
        "unknown": "401 outsiders | 404 pushers | 403 *",
        "foreign": "204 stranger | 403 *",
        "foreign-unknown": "404 stranger | 403 *",
    },
    "token.get_token GET": {
        "any": "401 tokens | 200 *",
    },
    "token.post_token POST": {
        "any": "401 tokens | 200 *",
    },
    "accounts.get_accounts GET": {
        "any": "200 admin | 403 *",
    },
    "accounts.post_account POST": {
        "any": "201 admin | 403 *",
    },
    "accounts.delete_account DELETE": {
        "known": "204 admin | 403 *",
        "unknown": "404 admin | 403 *",
    },
    "accounts.patch_account PATCH": {
        "known": "200 admin | 403 *",
        "unknown": "404 admin | 403 *",
    },
    "credentials.post_secret POST": {
        "own": "403 tokens person | 201 *",
        "anothers": "201 admin | 403 *",
        "unknown": "404 admin | 403 *",
    },
    "credentials.post_invitation POST": {
        "known": "201 admin | 403 *",
        "unknown": "404 admin | 403 *",
    },
    "credentials.post_password POST": {
        "any": "401 *",
        "invited": "401 *",
    },
    "credentials.get_token_keys GET": {
        "any": "200 admin auditor | 403 *",
    },
    "credentials.delete_token_keys DELETE": {
        "any": "204 admin | 403 *",
    },
    "collections.post_collection POST": {
        "any": "202 admin | 403 *",
    },
    "collections.get_collections GET": {
        "any": "200 admin officer auditor | 403 *",
    },
    "collections.get_collection GET": {
        "unknown": "404 admin officer auditor | 403 *",
    },
    "running.put_running PUT": {
        "own": "204 host | 403 *",
        "foreign": "403 *",
        "foreign-unknown": "403 *",
    },
    "running.get_running GET": {
        "any": "200 admin officer auditor | 403 *",
    },
    "accounts.post_bootstrap POST": {
        "any": "401 *",
    },
    "rules.get_rules GET": {
        "any": "200 officer auditor admin | 403 *",
    },
    "rules.put_one PUT": {
        "any": "201 admin | 403 *",
        "foreign": "201 admin | 403 *",
    },
    "rules.delete_one DELETE": {
        "known": "204 admin | 403 *",
        "unknown": "404 admin | 403 *",
    },
    "statements.post_statement POST": {
        "any": "201 officer | 403 *",
    },
    "statements.get_statements GET": {
        "any": "403 tokens host admin | 200 *",
    },
    "statements.get_policy GET": {
        "any": "200 *",
    },
    "statements.get_policy_by_digest GET": {
        "known": "200 *",
        "unknown": "404 *",
    },
    "statements.get_floors GET": {
        "any": "200 *",
    },
    "statements.get_revocations GET": {
        "any": "200 *",
    },
    "trust.post_trust POST": {
        "any": "201 officer admin | 403 *",
    },
    "trust.get_trust GET": {
        "any": "200 *",
    },
    "trust.get_key GET": {
        "any": "200 *",
    },
    "advisories.post_advisories POST": {
        "any": "202 scanner admin | 403 *",
    },
    "advisories.get_advisories GET": {
        "any": "200 scanner officer auditor admin | 403 *",
    },
    "audit.get_audit GET": {
        "any": "200 auditor | 403 *",
    },
    "images.list_images GET": {
        "any": "200 *",
    },
    "images.get_image GET": {
        "own": "404 creator deleter stranger other-token | 200 *",
        "own-unknown": "404 *",
        "borrowed": "404 *",
        "twin": "200 admin stranger | 404 *",
        "foreign": "200 admin stranger | 404 *",
        "foreign-unknown": "404 *",
    },
    "images.get_decision GET": {
        "own": "404 creator deleter stranger other-token | 200 *",
        "own-unknown": "404 *",
        "borrowed": "404 *",
        "twin": "200 admin stranger | 404 *",
        "foreign": "404 *",
        "foreign-unknown": "404 *",
    },
    "images.get_status GET": {
        "own": "404 creator deleter stranger other-token | 200 *",
        "own-unknown": "404 *",
        "borrowed": "404 *",
        "twin": "200 admin stranger | 404 *",
        "foreign": "200 admin stranger | 404 *",
        "foreign-unknown": "404 *",
    },
    "images.get_tag GET": {
        "own": "404 creator deleter admin stranger other-token | 200 *",
        "own-unknown": "404 *",
        "foreign": "200 stranger | 404 *",
        "foreign-unknown": "404 *",
    },
    "images.get_report GET": {
        "own": "403 tokens host admin | 404 creator deleter | 200 *",
        "foreign": "200 stranger | 403 tokens host admin | 404 *",
        "foreign-unknown": "403 tokens host admin | 404 *",
    },
    "images.get_evidence GET": {
        "own": "200 scanner officer auditor | 403 *",
        "foreign": "404 scanner officer auditor | 403 *",
        "foreign-unknown": "404 scanner officer auditor | 403 *",
    },
}
