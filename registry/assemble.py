"""An image put together from its layers: tree, root index, inventory, changes and account files. Pure.

What is made here is a function of the layers alone, lowest first, so it is kept by chain ID; manifest, config and
time come in later (`image_facts`). The registry runs it in a confined child; `pratique check` and `pratique approve`
run it where they are.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from ocispec import erofs, fields
from ocispec.config import ImageConfig, chain_ids
from ocispec.digest import Digest
from ocispec.entry import Kind
from ocispec.errors import SpecError
from ocispec.layer import READER_VERSION, LayerContent
from ocispec.manifest import Manifest
from ocispec.merge import Change, merge, merge_with_changes
from ocispec.strictjson import JsonValue, parse_object
from ocispec.tree import SYNTHETIC, Tree
from policy import canonical
from policy.approve import config_facts
from policy.model import FileChange, ImageFacts, LayerFacts
from policy.statements import ResolvedUser
from policy.users import resolve_user
from scanner import codec, facts
from scanner.inventory import CATALOGERS, inventory
from scanner.model import Inventory
from scanner.system import operating_system
from scanner.view import ImageView, shown

VERSION: Final = 1
"""Goes up whenever the same layers may give another assembly."""

MAX_CHANGES: Final = 20_000
"""Changes of lower files that are kept: an upgrade of a whole distribution makes some thousands."""

MAX_JSON: Final = 256 * 1024 * 1024
PASSWD: Final = b"etc/passwd"
GROUP: Final = b"etc/group"

_DATABASES: Final = (
    *(b"var/lib/dpkg/" + name for name in (b"status", b"info/", b"diversions")),
    b"lib/apk/db/",
    b"usr/lib/apk/db/",
    b"var/lib/rpm/",
    b"usr/lib/sysimage/rpm/",
    b"usr/share/rpm/",
    b"var/lib/pacman/local/",
)
"""Where distributions keep what is installed. Whoever writes there speaks of packages of the layers below (L8)."""

Accounts = Mapping[tuple[int, int], bytes]
"""The contents of account files by layer and offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembly:
    """An image without its manifest and config.

    `databases` says for each layer whether it writes a package database; `passwd` and `group` are None where the
    tree has no such regular file that was read.
    """

    root_index: Digest
    inventory: Inventory
    changes: tuple[FileChange, ...]
    changes_truncated: bool
    databases: tuple[bool, ...]
    sizes: tuple[int, ...]
    passwd: bytes | None = field(repr=False)
    group: bytes | None = field(repr=False)


def assemble(
    layers: Sequence[LayerContent], scanned: Sequence[facts.LayerFacts], accounts: Accounts
) -> tuple[Assembly, bytes]:
    """The assembly of an image, and the bytes of its root index.

    Raises:
        SpecError: the layers do not fit on each other, or the tree cannot be an index.
        ScanError: the facts are of other layers.
    """
    tree, changes = merge_with_changes(layers)
    index = erofs.root_index(tree, layers)
    kept = changes[:MAX_CHANGES]
    made = Assembly(
        root_index=Digest.of(index),
        inventory=inventory(tree, scanned),
        changes=_with_owners(kept, layers, scanned),
        changes_truncated=len(changes) > len(kept),
        databases=_writes_databases(tree, changes, layers),
        sizes=tuple(layer.size for layer in layers),
        passwd=_account_file(tree, PASSWD, accounts),
        group=_account_file(tree, GROUP, accounts),
    )
    return made, index


def image_facts(
    assembly: Assembly,
    *,
    registry: str,
    repository: str,
    manifest: Manifest,
    config: ImageConfig,
    first_seen: datetime,
) -> tuple[ImageFacts, tuple[str, ...]]:
    """What identifies the image and steers its process, and what could not be told of it."""
    errors: tuple[str, ...] = ()
    user: ResolvedUser | None = None
    try:
        user = resolve_user(config.user, passwd=assembly.passwd, group=assembly.group)
    except SpecError as error:
        errors = (str(error),)
    chain = chain_ids(config.diff_ids)
    layers = tuple(
        LayerFacts(diff_id=diff_id, chain_id=chain_id, size=size, writes_package_database=writes)
        for diff_id, chain_id, size, writes in zip(
            config.diff_ids, chain, assembly.sizes, assembly.databases, strict=True
        )
    )
    found = ImageFacts(
        registry=registry,
        repository=repository,
        manifest=manifest.digest,
        config=config.digest,
        platform=str(config.platform),
        layers=layers,
        root_index=assembly.root_index,
        reader=READER_VERSION,
        format=erofs.FORMAT_VERSION,
        config_facts=config_facts(config),
        user=user,
        created=config.created,
        first_seen=first_seen,
    )
    return found, errors


def dump(assembly: Assembly) -> bytes:
    """The assembly as canonical JSON."""
    return canonical.encode(
        {
            "version": VERSION,
            "rootIndex": str(assembly.root_index),
            "inventory": clean(codec.to_json(assembly.inventory)),
            "changes": [
                [change.path, change.layer, change.lower_layer, change.kind, change.owner]
                for change in assembly.changes
            ],
            "changesTruncated": assembly.changes_truncated,
            "databases": list(assembly.databases),
            "sizes": list(assembly.sizes),
            "passwd": _text(assembly.passwd),
            "group": _text(assembly.group),
        }
    )


def clean(value: JsonValue) -> JsonValue:
    """`value` with what is not Unicode in its strings spelled in escapes: no JSON can hold a lone surrogate."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {name: clean(item) for name, item in value.items()}
    return value


def load(raw: bytes, *, layers: int) -> Assembly:
    """The assembly that `dump` wrote, of an image of so many layers.

    Raises:
        SpecError, ScanError: of another version, or not what `dump` writes.
    """
    what = "assembly"
    members = parse_object(raw, what=what, max_bytes=MAX_JSON)
    if (version := members.get("version")) != VERSION:
        raise SpecError(f"{what}: version {version!r:.20}, expected {VERSION}")
    return Assembly(
        root_index=Digest.parse(fields.text(members, "rootIndex", what=what)),
        inventory=codec.from_json(Inventory, members.get("inventory"), what=f"{what}: inventory"),
        changes=tuple(_change(item) for item in fields.items(members, "changes", what=what, limit=MAX_CHANGES)),
        changes_truncated=fields.boolean(members, "changesTruncated", what=what),
        databases=tuple(item is True for item in _exactly(members, "databases", layers)),
        sizes=tuple(item for item in _exactly(members, "sizes", layers) if isinstance(item, int)),
        passwd=_bytes(members.get("passwd"), what),
        group=_bytes(members.get("group"), what),
    )


def _with_owners(
    changes: Iterable[Change], layers: Sequence[LayerContent], scanned: Sequence[facts.LayerFacts]
) -> tuple[FileChange, ...]:
    owners: dict[int, Mapping[bytes, str]] = {}
    found: list[FileChange] = []
    for change in changes:
        # Who owned the lower file is told by the image as it was below the layer that changed it.
        if change.layer not in owners:
            owners[change.layer] = _owners(layers[: change.layer], scanned[: change.layer])
        found.append(
            FileChange(
                path="/" + shown(change.path),
                layer=change.layer,
                lower_layer=change.lower_layer,
                kind=change.kind,
                owner=owners[change.layer].get(change.path, ""),
            )
        )
    return tuple(found)


def _owners(layers: Sequence[LayerContent], scanned: Sequence[facts.LayerFacts]) -> Mapping[bytes, str]:
    view = ImageView(merge(layers), scanned)
    system, _ = operating_system(view)
    owned: dict[bytes, str] = {}
    for cataloger in CATALOGERS:
        for path, purl in cataloger.catalog(view, system, owned).owned.items():
            owned.setdefault(path, purl)
    return owned


def _writes_databases(tree: Tree, changes: Iterable[Change], layers: Sequence[LayerContent]) -> tuple[bool, ...]:
    """By the paths as the layers spell them, and by where the merge put them: a parent may be a symlink."""
    writes = [any(member.path.startswith(_DATABASES) for member in layer.members) for layer in layers]
    for path, node in tree.walk():
        if node.layer != SYNTHETIC and not node.is_directory and path.startswith(_DATABASES):
            writes[node.layer] = True
    for change in changes:
        if change.path.startswith(_DATABASES):
            writes[change.layer] = True
    return tuple(writes)


def _account_file(tree: Tree, path: bytes, accounts: Accounts) -> bytes | None:
    # Not through symlinks: a link may lead to a file that was not kept, and passwd is no link in any image we met.
    node = tree.get(path)
    if node is None or node.entry.kind is not Kind.FILE or node.layer == SYNTHETIC:
        return None
    return accounts.get((node.layer, node.entry.offset))


def _exactly(members: Mapping[str, JsonValue], name: str, count: int) -> list[JsonValue]:
    items = fields.items(members, name, what="assembly", limit=count)
    if len(items) != count:
        raise SpecError(f"assembly: {name} has {len(items)} items, expected {count}")
    return items


def _change(item: JsonValue) -> FileChange:
    match item:
        case [str(path), int(layer), int(lower), str(kind), str(owner)]:
            return FileChange(path=path, layer=layer, lower_layer=lower, kind=kind, owner=owner)
        case _:
            raise SpecError("assembly: a change is not path, layer, lower layer, kind and owner")


def _text(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _bytes(text: JsonValue, what: str) -> bytes | None:
    if text is None:
        return None
    try:
        return base64.b64decode(text if isinstance(text, str) else "?", validate=True)
    except ValueError:
        raise SpecError(f"{what}: an account file is not base64") from None
