"""The root index: an image's tree as a metadata-only EROFS image whose files point into the layer tars.

Format: linux/fs/erofs/erofs_fs.h (6.12) and Documentation/filesystems/erofs.rst; what the kernel makes of
it is tested by mounting. All numbers are little-endian, blocks have 512 bytes as in tar. The image is

    1024 zeros | superblock, 128 | device slots, 128 each | inodes and inline data | blocks of directories

and layer tar `i` is extra device `i`: block `b` of it is block `uniaddr + b` of the whole. Files are flat
(not chunked), so that a mount with a device forgotten gives errors, and never zeros.

The bytes are a function of the ordered diff_ids, READER_VERSION and FORMAT_VERSION: no clock, no random
number, no order of a hash table has any part in them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from ocispec.entry import Kind
from ocispec.errors import LimitError
from ocispec.layer import READER_VERSION, LayerContent
from ocispec.tree import Node, Tree

FORMAT_VERSION: Final = 1
"""Goes up whenever the same tree may give other bytes: clearances name it, hosts keep the last two."""

BLOCK: Final = 512
MAX_BLOCKS: Final = 2**32 - 1
"""Blocks of index and tars together: 2 TiB; the last number means "none"."""

_MAGIC = 0xE0F5E1E2
_SUPERBLOCK = 1024
_DEVICES = 1152
_SLOT = 128
_INODE = 64
_MTIME = 0x2
_DEVICE_TABLE = 0x8
_PLAIN = 0 << 1 | 1  # EROFS_INODE_FLAT_PLAIN, extended inode
_INLINE = 2 << 1 | 1  # EROFS_INODE_FLAT_INLINE, extended inode
_NO_BLOCK = 0xFFFFFFFF

# magic, checksum, features; blkszbits, extslots, root_nid, inodes; build time and ns, blocks;
# meta_blkaddr, xattr_blkaddr; uuid, name; incompat, algorithms, extra_devices, devt_slotoff; zeros.
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHH38x")
_DEVICE = struct.Struct("<64sII56x")
# format, xattr_icount, mode; size; i_u, ino; uid, gid; mtime, ns; nlink.
_INODE_STRUCT = struct.Struct("<HHHxxQIIIIqII16x")
_XATTR_HEADER = struct.Struct("<IB7x")
_XATTR = struct.Struct("<BBH")
_DIRENT = 12
# nid, nameoff, file_type, for each number of names that a block can hold.
_DIRENTS = tuple(struct.Struct("<" + "QHBx" * count) for count in range(BLOCK // (_DIRENT + 1) + 1))

_TYPE_BITS: Final = {
    Kind.FILE: 0o100000,
    Kind.DIRECTORY: 0o040000,
    Kind.CHARACTER: 0o020000,
    Kind.BLOCK: 0o060000,
    Kind.FIFO: 0o010000,
    Kind.SOCKET: 0o140000,
    Kind.SYMLINK: 0o120000,
}
_XATTR_PREFIXES: Final = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)


def root_index(tree: Tree, layers: Sequence[LayerContent]) -> bytes:
    """The root index of `tree`, which `layers` were merged into.

    Raises:
        LimitError: index and tars together are larger than EROFS can address.
    """
    return _Writer(tree, layers).write()


def mount_options(devices: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Options for fsconfig(2), in order: `devices` are the layer tars, lowest first, as the index expects them."""
    return tuple(("device", path) for path in devices)


class _Directory:
    """A directory's names in order, cut into blocks, and what of them goes behind its inode."""

    __slots__ = ("cuts", "inline", "names", "node", "nodes", "size", "start", "xattrs")

    def __init__(self, node: Node, parent: Node) -> None:
        self.node = node
        named = {b".": node, b"..": parent, **node.children}
        self.names = sorted(named)
        self.nodes = [named[name] for name in self.names]
        self.cuts, last = _cut(self.names)
        self.size = (len(self.cuts) - 2) * BLOCK + last
        self.xattrs = _xattr_body(node.entry.xattrs)
        self.inline = last if _INODE + len(self.xattrs) + last <= BLOCK else 0
        self.start = 0  # its first block, counted from the end of the inodes

    @property
    def blocks(self) -> int:
        """How many of its blocks are not inline."""
        return len(self.cuts) - 1 - (self.inline > 0)


class _Writer:
    """Places every inode, then writes all: an address can stand in a directory before its inode is reached."""

    def __init__(self, tree: Tree, layers: Sequence[LayerContent]) -> None:
        self._layers = layers
        self._nids: dict[Node, int] = {}
        self._directories: list[_Directory] = []
        self._files: list[Node] = []  # without attributes
        self._special: list[Node] = []  # all others but directories
        self._symlink_starts: dict[Node, int] = {}  # of those that are too long to be inline
        self._end = _DEVICES + _SLOT * len(layers)
        self._blocks = 0  # of directories and long symlinks; they lie behind all inodes
        self._place_all(tree.root)
        self._first_block = -(-self._end // BLOCK)
        self._own_blocks = self._first_block + self._blocks
        self._addresses = self._device_addresses()

    def write(self) -> bytes:
        image = bytearray(self._own_blocks * BLOCK)
        self._write_super(image)
        for directory in self._directories:
            self._write_directory(image, directory)
        self._write_files(image)
        for node in self._special:
            self._write_special(image, node)
        return bytes(image)

    def _place_all(self, root: Node) -> None:
        pending = [(root, root)]
        nids, files = self._nids, self._files
        file_kind, directory_kind = Kind.FILE, Kind.DIRECTORY
        while pending:
            node, parent = pending.pop()
            directory = _Directory(node, parent)
            self._directories.append(directory)
            self._place(node, len(directory.xattrs), directory.inline)
            directory.start = self._blocks
            self._blocks += directory.blocks
            below = []
            for child in directory.nodes:
                entry = child.entry
                kind = entry.kind
                if kind is directory_kind:
                    if child is not node and child is not parent:
                        below.append((child, node))
                elif child.nlink > 1 and child in nids:
                    continue
                elif kind is file_kind and not entry.xattrs:
                    # What _place does, without the call: nearly all nodes are such files.
                    position = (self._end + 31) & ~31
                    nids[child] = position >> 5
                    self._end = position + _INODE
                    files.append(child)
                else:
                    self._special.append(child)
                    self._place_special(child)
            pending += below[::-1]

    def _place(self, node: Node, xattrs: int, inline: int) -> None:
        position = (self._end + 31) & ~31
        size = _INODE + xattrs + inline
        if inline and position % BLOCK + size > BLOCK:
            # The kernel wants inline data, and a short symlink's inode with it, within one block.
            position = (position + BLOCK - 1) & -BLOCK
        self._nids[node] = position >> 5
        self._end = position + size

    def _place_special(self, node: Node) -> None:
        xattrs, target = len(_xattr_body(node.entry.xattrs)), len(node.entry.target)
        if _INODE + xattrs + target <= BLOCK:
            self._place(node, xattrs, target)
            return
        self._place(node, xattrs, 0)
        if target:
            self._symlink_starts[node] = self._blocks
            self._blocks += -(-target // BLOCK)

    def _device_addresses(self) -> list[int]:
        addresses = []
        following = self._own_blocks
        for content in self._layers:
            addresses.append(following)
            following += content.size // BLOCK
        if following > MAX_BLOCKS:
            raise LimitError(
                f"root index: {following} blocks of {BLOCK} with its layers, expected {MAX_BLOCKS} at most"
            )
        return addresses

    def _write_super(self, image: bytearray) -> None:
        diff_ids = [str(content.diff_id) for content in self._layers]
        versions = f"pratique-{READER_VERSION}-{FORMAT_VERSION}"
        identity = hashlib.sha256("\n".join([versions, *diff_ids]).encode()).digest()[:16]
        count = len(self._layers)
        _SUPER.pack_into(
            image, _SUPERBLOCK,
            _MAGIC, 0, _MTIME,
            9, 0, self._nids[self._directories[0].node], len(self._nids),
            0, 0, self._own_blocks,
            0, 0,
            identity, versions.encode(),
            _DEVICE_TABLE if count else 0, 0, count, _DEVICES // _SLOT if count else 0,
        )  # fmt: skip
        for index, (content, address) in enumerate(zip(self._layers, self._addresses, strict=True)):
            tag = content.diff_id.hex.encode()
            _DEVICE.pack_into(image, _DEVICES + index * _SLOT, tag, content.size // BLOCK, address)

    def _write_inode(self, image: bytearray, node: Node, layout: int, size: int, union: int) -> int:
        """Write an inode with its attributes; return the position behind them."""
        entry, nid = node.entry, self._nids[node]
        body = _xattr_body(entry.xattrs)
        # i_xattr_icount: erofs_fs.h, "erofs_xattr_ibody_size".
        count = (len(body) - 12) // 4 + 1 if body else 0
        seconds, nanoseconds = entry.mtime
        _INODE_STRUCT.pack_into(
            image, nid << 5,
            layout, count, _TYPE_BITS[entry.kind] | entry.mode, size, union, nid,
            entry.uid, entry.gid, seconds, nanoseconds, node.nlink,
        )  # fmt: skip
        end = (nid << 5) + _INODE
        image[end : end + len(body)] = body
        return end + len(body)

    def _write_files(self, image: bytearray) -> None:
        addresses, nids, pack_into = self._addresses, self._nids, _INODE_STRUCT.pack_into
        type_bits = _TYPE_BITS[Kind.FILE]
        for node in self._files:
            _, _, mode, uid, gid, (seconds, nanoseconds), size, offset, _, _, _ = node.entry
            nid = nids[node]
            start = addresses[node.layer] + offset // BLOCK if size else _NO_BLOCK
            pack_into(
                image, nid << 5,
                _PLAIN, 0, type_bits | mode, size, start, nid, uid, gid, seconds, nanoseconds, node.nlink,
            )  # fmt: skip

    def _write_special(self, image: bytearray, node: Node) -> None:
        entry = node.entry
        if entry.kind is Kind.SYMLINK:
            target = entry.target
            if node in self._symlink_starts:
                start = self._first_block + self._symlink_starts[node]
                self._write_inode(image, node, _PLAIN, len(target), start)
                end = start * BLOCK
            else:
                end = self._write_inode(image, node, _INLINE, len(target), 0)
            image[end : end + len(target)] = target
        elif entry.kind is Kind.FILE:
            start = self._addresses[node.layer] + entry.offset // BLOCK if entry.size else _NO_BLOCK
            self._write_inode(image, node, _PLAIN, entry.size, start)
        else:
            self._write_inode(image, node, _PLAIN, 0, _device_number(*entry.rdev))

    def _write_directory(self, image: bytearray, directory: _Directory) -> None:
        node, nids = directory.node, self._nids
        layout = _INLINE if directory.inline else _PLAIN
        start = self._first_block + directory.start
        end = self._write_inode(image, node, layout, directory.size, start)
        for number, (first, last) in enumerate(pairwise(directory.cuts)):
            names = directory.names[first:last]
            offset = _DIRENT * len(names)
            values: list[int] = []
            for name, child in zip(names, directory.nodes[first:last], strict=True):
                values += (nids[child], offset, child.entry.kind)
                offset += len(name)
            block = _DIRENTS[len(names)].pack(*values) + b"".join(names)
            is_inline = directory.inline and last == len(directory.names)
            position = end if is_inline else (start + number) * BLOCK
            image[position : position + len(block)] = block


def _cut(names: list[bytes]) -> tuple[list[int], int]:
    """Where directory blocks begin among `names`, with the end; and the bytes used in the last block."""
    used = _DIRENT * len(names) + sum(map(len, names))
    if used <= BLOCK:
        return [0, len(names)], used
    cuts, used = [0], 0
    for index, name in enumerate(names):
        size = _DIRENT + len(name)
        if used + size > BLOCK:
            cuts.append(index)
            used = 0
        used += size
    return [*cuts, len(names)], used


def _xattr_body(xattrs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """What stands behind an inode for its attributes: erofs_fs.h, "erofs_xattr_ibody_header"."""
    if not xattrs:
        return b""
    parts = [_XATTR_HEADER.pack(0, 0)]
    for name, value in xattrs:
        prefix, index = next((prefix, index) for prefix, index in _XATTR_PREFIXES if name.startswith(prefix))
        suffix = name[len(prefix) :]
        record = _XATTR.pack(len(suffix), index, len(value)) + suffix + value
        parts.append(record + bytes(-len(record) & 3))
    return b"".join(parts)


def _device_number(major: int, minor: int) -> int:
    # linux/kdev_t.h, new_encode_dev; 0 for what is no device.
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12
