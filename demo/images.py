"""The demo's images: a Debian base by mmdebstrap, and images built on it in an OCI layout."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ocispec.digest import Digest

SUITE = "trixie"
PACKAGES = "python3-minimal"


class Layout:
    """An OCI image layout that images are added to; `image-layout.md` of the image specification."""

    def __init__(self, folder: Path) -> None:
        """Begin a layout in `folder`, which may be empty or hold one already."""
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add_base(self, tag: str, tar: Path) -> None:
        """Add an image of one layer, the uncompressed `tar`."""
        self._write(tag, self._config({}), [], tar.read_bytes())

    def take_base(self, tag: str, source: str) -> None:
        """Copy an image from another place (a transport that skopeo knows) as `tag`."""
        subprocess.run(
            ["skopeo", "copy", "--quiet", "--override-os", "linux", source, f"oci:{self.folder}:{tag}"], check=True
        )

    def derive(self, parent: str, tag: str, files: Mapping[str, bytes], **run: object) -> None:
        """Add `tag`: one layer of `files` on top of `parent`; `run` replaces fields of the config, e.g. Entrypoint.

        A path that ends in `!` is executable. Without files no layer is added: the config alone differs.
        """
        manifest = self._manifest(parent)
        config = json.loads(self._blob(manifest["config"]["digest"]))
        config["config"] = {**config.get("config", {}), **run}
        config.pop("history", None)
        self._write(tag, config, manifest["layers"], tar_of(files) if files else None)

    def start(self, tag: str, files: Mapping[str, bytes], **run: object) -> None:
        """Add `tag`: an image of one layer of `files`, on nothing."""
        self._write(tag, self._config(dict(run)), [], tar_of(files))

    def _config(self, run: dict[str, object]) -> dict[str, Any]:
        done = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
        return {
            "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "architecture": done.stdout.strip(),
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": []},
        }

    def _write(self, tag: str, config: dict[str, Any], layers: list[Any], tar: bytes | None) -> None:
        config = json.loads(json.dumps(config))
        if tar is not None:
            blob = gzip.compress(tar, compresslevel=1, mtime=0)
            layers = [*layers, self._put(blob, "application/vnd.oci.image.layer.v1.tar+gzip")]
            config["rootfs"]["diff_ids"].append(str(Digest.of(tar)))
        media_type = "application/vnd.oci.image.manifest.v1+json"
        manifest = {
            "schemaVersion": 2,
            "mediaType": media_type,
            "config": self._put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": layers,
        }
        entry = self._put(json.dumps(manifest).encode(), media_type)
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        others = [item for item in self._index() if item.get("annotations") != entry["annotations"]]
        (self.folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [*others, entry]}))

    def _put(self, content: bytes, media_type: str) -> dict[str, Any]:
        digest = Digest.of(content)
        (self.folder / "blobs" / "sha256" / digest.hex).write_bytes(content)
        return {"mediaType": media_type, "digest": str(digest), "size": len(content)}

    def _blob(self, digest: str) -> bytes:
        return (self.folder / "blobs" / "sha256" / Digest.parse(digest).hex).read_bytes()

    def _index(self) -> list[dict[str, Any]]:
        path = self.folder / "index.json"
        return list(json.loads(path.read_bytes())["manifests"]) if path.exists() else []

    def _manifest(self, tag: str) -> dict[str, Any]:
        for entry in self._index():
            if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag:
                return dict(json.loads(self._blob(entry["digest"])))
        raise LookupError(f"{self.folder}: no image is tagged {tag}")


def debian_root(tar: Path) -> None:
    """Make a Debian root file system with mmdebstrap, as a tar.

    Package lists are left out: they would be stale at once, and are no component.
    """
    if shutil.which("mmdebstrap") is None:
        raise FileNotFoundError("mmdebstrap is not installed")
    subprocess.run(
        [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            f"--include={PACKAGES}",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            "--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/*.bin $1/var/log/*.log $1/var/log/apt",
            SUITE,
            str(tar),
        ],
        check=True,
    )


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """A layer of `files`; the same files give the same bytes. Parent directories are left to the layer below."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted(files.items()):
            info = tarfile.TarInfo(path.removesuffix("!"))
            info.mode = 0o755 if path.endswith("!") else 0o644
            info.mtime = 1_767_225_600
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
