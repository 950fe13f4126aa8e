"""What the store knows of one pulled image: written at pull, after it was proven, and compared at every start.

Nothing is believed because it stands here: each field is compared with the signed clearance, and the bytes of
layers and root index with both.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.manifest import MAX_LAYERS
from ocispec.strictjson import JsonValue, parse
from policy import canonical
from policy.clearance import Subject
from policy.errors import PolicyError
from policy.statements import ConfigFacts, ResolvedUser
from policy.times import format_time
from policy.users import MAX_GROUPS
from policy.wire.approvals import read_facts, write_facts
from policy.wire.members import Members, texts_of
from runtime.errors import StoreError

MAX_RECORD = 4 * 1024 * 1024
"""Bytes of a record; an environment may be long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One platform's image in one repository.

    `index` is what its manifest was chosen from, or None. `user` is the config's, as it was found in the tree here.
    """

    registry: str
    repository: str
    manifest: Digest
    config: Digest
    platform: str
    diff_ids: tuple[Digest, ...]
    root_index: Digest
    index: Digest | None
    user: ResolvedUser
    config_facts: ConfigFacts
    pulled: datetime

    @property
    def name(self) -> str:
        """`registry/repository@digest`."""
        return f"{self.registry}/{self.repository}@{self.manifest}"

    @property
    def key(self) -> str:
        """Its folder in the store: a manifest may be in several repositories, each with a clearance of its own."""
        return f"{self.manifest.hex[:64]}-{place_of(self.registry, self.repository)}"

    def subject(self, root_index: Digest | None) -> Subject:
        """What is about to start, with the digest that the root index was found to have."""
        return Subject(
            registry=self.registry,
            repository=self.repository,
            manifest=self.manifest,
            config=self.config,
            diff_ids=self.diff_ids,
            platform=self.platform,
            config_facts=self.config_facts,
            root_index=root_index,
            index=self.index,
            user=self.user,
        )


def place_of(registry: str, repository: str) -> str:
    """What ends the keys of all images in one repository."""
    return Digest.of(f"{registry}/{repository}".encode()).hex[:16]


def encode(record: ImageRecord) -> bytes:
    """The record as it is kept."""
    members: dict[str, JsonValue] = {
        "config": str(record.config),
        "configFacts": write_facts(record.config_facts),
        "diffIds": texts_of(record.diff_ids),
        "manifest": str(record.manifest),
        "platform": record.platform,
        "pulled": format_time(record.pulled),
        "registry": record.registry,
        "repository": record.repository,
        "rootIndex": str(record.root_index),
        "user": {
            "gid": record.user.gid,
            "groups": list(record.user.groups),
            "home": record.user.home,
            "uid": record.user.uid,
        },
        "version": "1",
    }
    if record.index is not None:
        members["index"] = str(record.index)
    return canonical.encode(members)


def decode(raw: bytes, *, what: str) -> ImageRecord:
    """Return the record in `raw`.

    Raises:
        StoreError: damaged.
    """
    try:
        members = Members(parse(raw, what=what, max_bytes=MAX_RECORD), what)
        members.fixed("version", "1")
        record = ImageRecord(
            registry=members.registry("registry"),
            repository=members.repository("repository"),
            manifest=members.digest("manifest"),
            config=members.digest("config"),
            platform=members.platform("platform"),
            diff_ids=members.digests("diffIds", MAX_LAYERS),
            root_index=members.digest("rootIndex"),
            index=members.digest("index") if members.has("index") else None,
            user=_read_user(members.child("user")),
            config_facts=read_facts(members.child("configFacts")),
            pulled=members.time("pulled"),
        )
        members.end()
    except (SpecError, PolicyError) as error:
        raise StoreError(f"{what}: damaged: {error}") from None
    return record


def _read_user(members: Members) -> ResolvedUser:
    user = ResolvedUser(
        uid=members.identity("uid"),
        gid=members.identity("gid"),
        groups=members.identities("groups", MAX_GROUPS),
        home=members.text("home"),
    )
    members.end()
    return user
