"""An image's manifest, config, layers and tree, read as strictly as the registry and a host read it.

pratique inspect oci:build:web
pratique inspect --tree registry.example/shop/web:1      every path: type, mode, owner, size, layer
"""

from __future__ import annotations

import argparse
import stat
import sys
from typing import TYPE_CHECKING

from pratique import arguments as shared
from pratique import clock, sources
from pratique.exits import Exit
from pratique.output import as_json, clean, line, size

if TYPE_CHECKING:
    from ocispec.strictjson import JsonValue
    from ocispec.tree import Node
    from pratique.reading import ReadImage

_TYPES = {
    1: stat.S_IFREG,
    2: stat.S_IFDIR,
    3: stat.S_IFCHR,
    4: stat.S_IFBLK,
    5: stat.S_IFIFO,
    6: stat.S_IFSOCK,
    7: stat.S_IFLNK,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the source and what is shown."""
    sources.add_source(parser)
    parser.add_argument("--tree", action="store_true", help="list every path of the merged tree")
    shared.add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Read it, and show what it is."""
    read = sources.read_source(arguments, clock.now())
    if arguments.tree:
        _tree(read)
    elif arguments.json:
        as_json(_facts(read))
    else:
        _show(read)
    return Exit.FINE


def _facts(read: ReadImage) -> dict[str, JsonValue]:
    from ocispec.config import chain_ids
    from ocispec.digest import Digest

    manifest, config = read.image.manifest, read.image.config
    chain = chain_ids(config.diff_ids)
    layers: list[JsonValue] = [
        {
            "digest": str(layer.descriptor.digest),
            "media_type": str(layer.descriptor.media_type),
            "stored_bytes": layer.descriptor.size,
            "diff_id": str(layer.diff_id),
            "chain_id": str(chain_id),
            "bytes": content.size,
            "entries": len(content.members),
            "writes_package_database": writes,
        }
        for layer, content, chain_id, writes in zip(
            read.image.layers, read.contents, chain, read.assembly.databases, strict=True
        )
    ]
    return {
        "manifest": str(manifest.digest),
        "media_type": str(manifest.media_type),
        "config": str(config.digest),
        "platform": str(config.platform),
        "root_index": str(Digest.of(read.index)),
        "user": config.user,
        "env": list(config.env),
        "entrypoint": list(config.entrypoint),
        "cmd": list(config.cmd),
        "working_dir": config.working_dir,
        "volumes": list(config.volumes),
        "stop_signal": config.stop_signal,
        "labels": dict(config.labels),
        "layers": layers,
    }


def _show(read: ReadImage) -> None:
    facts = _facts(read)
    layers = facts.pop("layers")
    for name, value in facts.items():
        if value in ("", [], {}):
            continue
        if isinstance(value, dict):
            text = ", ".join(f"{key}={label}" for key, label in value.items())
        else:
            text = " ".join(str(item) for item in value) if isinstance(value, list) else str(value)
        line(f"{name.replace('_', ' ') + ':':<13}{text}")
    for position, layer in enumerate(layers if isinstance(layers, list) else []):
        if isinstance(layer, dict):
            stored, whole = (layer[key] for key in ("stored_bytes", "bytes"))
            shown = f"{size(int(str(stored)))} stored, {size(int(str(whole)))}, {layer['entries']} entries"
            line(f"layer {position}:     {layer['diff_id']}  {shown}")


def _tree(read: ReadImage) -> None:
    from ocispec.merge import merge

    for path, node in merge(read.contents).walk():
        print(_row(path, node), file=sys.stdout)


def _row(path: bytes, node: Node) -> str:
    entry = node.entry
    mode = stat.filemode(_TYPES[int(entry.kind)] | entry.mode)
    target = f" -> {entry.target.decode('utf-8', 'backslashreplace')}" if entry.target else ""
    name = "/" + path.decode("utf-8", "backslashreplace")
    origin = str(node.layer) if node.layer >= 0 else "-"
    return clean(f"{mode}  {entry.uid}:{entry.gid}  {entry.size:>10}  {origin:>3}  {name}{target}")
