"""What other engines need to believe a registry's signatures: podman's policy.json and registries.d file.

The files are those of containers-policy.json(5) and containers-registries.d(5). podman then takes an image
only with a simple signature by the registry's key for that repository and tag; everything from elsewhere,
loaded archives included (S10), is refused. It sees neither expiry nor revocation: see docs/trust.md.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime

from ocispec.strictjson import JsonValue
from policy.errors import PolicyError
from policy.statements import Role
from policy.trust import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """A file to write; `name` is relative to /etc/containers."""

    name: str
    text: str


def podman(trust: Trust, registry: str, now: datetime) -> tuple[ExportedFile, ...]:
    """policy.json and registries.d/REGISTRY.yaml for `registry`, with its keys that are valid at `now`.

    Raises:
        PolicyError: trust.json lists no valid key of that registry.
    """
    keys = [
        key.key.pem
        for key_id, key in sorted(trust.keys.items())
        if key.role is Role.REGISTRY
        and key.owner == registry
        and key.not_before <= now < key.not_after
        and key_id not in trust.revoked
    ]
    if not keys:
        raise PolicyError(f"trust.json version {trust.root.version}: no valid key of registry {registry!r}")
    encoded: list[JsonValue] = [base64.b64encode(pem).decode() for pem in keys]
    signed: dict[str, JsonValue] = {
        "type": "sigstoreSigned",
        "signedIdentity": {"type": "matchRepoDigestOrExact"},
    }
    # keyDatas came with containers/image 5.33; a single key is said so that older ones understand it too.
    if len(encoded) == 1:
        signed["keyData"] = encoded[0]
    else:
        signed["keyDatas"] = encoded
    policy: dict[str, JsonValue] = {
        "default": [{"type": "reject"}],
        "transports": {"docker": {registry: [signed]}},
    }
    attachments = f"docker:\n  {json.dumps(registry)}:\n    use-sigstore-attachments: true\n"
    return (
        ExportedFile(name="policy.json", text=json.dumps(policy, indent=2) + "\n"),
        ExportedFile(name=f"registries.d/{registry.replace(':', '_')}.yaml", text=attachments),
    )
