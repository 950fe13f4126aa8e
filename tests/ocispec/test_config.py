"""The config: every field that steers the process, and nothing that could be read in two ways."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ocispec.config import MAX_CONFIG, chain_ids, parse_config
from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from ocispec.errors import LimitError, SpecError, UnsupportedError
from ocispec.image import check_image
from ocispec.manifest import parse_image_manifest
from tests.support.images import image

DIFF_ID = str(Digest.of(b"layer"))
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "rootfs": {"type": "layers", "diff_ids": [DIFF_ID]},
    "config": {
        "User": "app:app",
        "Env": ["PATH=/bin", "EMPTY="],
        "Entrypoint": ["/bin/app"],
        "Cmd": ["--help"],
        "WorkingDir": "/srv",
        "Volumes": {"/data": {}},
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGINT",
        "Labels": {"b": "1", "a": "2"},
    },
    "created": "2026-01-02T03:04:05.678Z",
    "history": [{"created_by": "x"}, {}],
}


def _raw(run: dict[str, Any] | None = None, **changes: Any) -> bytes:
    members = {**CONFIG, **changes}
    if run is not None:
        members["config"] = run
    return json.dumps({name: value for name, value in members.items() if value != "drop"}).encode()


def test_every_field_is_read() -> None:
    config = parse_config(_raw())
    assert config.digest == Digest.of(_raw())
    assert str(config.platform) == "linux/amd64"
    assert config.argv == ("/bin/app", "--help")
    assert config.env == ("PATH=/bin", "EMPTY=")
    assert (config.user, config.working_dir, config.stop_signal) == ("app:app", "/srv", "SIGINT")
    assert (config.volumes, config.exposed_ports) == (("/data",), ("80/tcp",))
    assert config.labels == (("a", "2"), ("b", "1"))
    assert config.history_count == 2
    assert config.created.startswith("2026-01-02")


def test_null_is_absent() -> None:
    run = dict.fromkeys(("User", "Env", "Entrypoint", "Cmd", "Volumes", "Labels", "WorkingDir"))
    config = parse_config(_raw(run, created=None, history=None))
    assert config.argv == ()
    assert config.created == ""
    assert parse_config(_raw(config=None)).env == ()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (_raw(rootfs="drop"), "rootfs is missing"),
        (_raw(rootfs={"type": "other", "diff_ids": []}), "expected 'layers'"),
        (_raw(rootfs={"type": "layers", "diff_ids": ["sha256:x"]}), "digest"),
        (_raw(rootfs={"type": "layers", "Diff_IDs": []}), "in another case"),
        (_raw(os="drop"), "os is missing"),
        (_raw(architecture=""), "not a word"),
        (_raw(created="yesterday"), "RFC 3339"),
        (_raw(Config={"Entrypoint": ["/evil"]}), "'config' in another case"),
        (_raw({"entrypoint": ["/evil"]}), "'Entrypoint' in another case"),
        (_raw({"Env": ["PATH"]}), "is not NAME=VALUE"),
        (_raw({"Env": ["=x"]}), "is not NAME=VALUE"),
        (_raw({"Env": ["A=1", "B=1", "A=2"]}), "'A' is set twice"),
        (_raw({"Env": ["A=\0"]}), "NUL"),
        (_raw({"User": "a\0"}), "NUL"),
        (_raw({"WorkingDir": "/\0"}), "NUL"),
        (_raw({"Volumes": {"/\0": {}}}), "NUL"),
        (_raw({"Cmd": "sh"}), "Cmd is a string, expected an array"),
        (_raw({"Entrypoint": [1]}), r"Entrypoint\[0\] is a number"),
        (_raw({"Labels": {"a": 1}}), "Labels"),
        (_raw({"User": 0}), "User is a number"),
    ],
)
def test_a_config_that_could_be_read_otherwise_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        parse_config(raw)


def test_a_config_is_bounded() -> None:
    with pytest.raises(LimitError):
        parse_config(b" " * (MAX_CONFIG + 1))


def test_chain_ids_are_the_specifications() -> None:
    first, second, third = (Digest.of(name) for name in (b"a", b"b", b"c"))
    two = "sha256:" + hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    three = "sha256:" + hashlib.sha256(f"{two} {third}".encode()).hexdigest()
    assert [str(item) for item in chain_ids([first, second, third])] == [str(first), two, three]
    assert chain_ids([]) == ()


def test_manifest_and_config_must_belong_together() -> None:
    built, other = image(), image(entrypoint=["/other"])
    check_image(built.manifest, built.config)
    with pytest.raises(SpecError, match="config mismatch"):
        check_image(built.manifest, other.config)


def _changed(**changes: Any) -> Any:
    built = image([{"a": b"1"}, {"b": b"2"}])
    members = json.loads(built.manifest.raw)
    for name, value in changes.items():
        members[name] = value(members[name])
    return parse_image_manifest(json.dumps(members).encode(), None), built.config


def test_layers_and_diff_ids_must_be_as_many() -> None:
    with pytest.raises(SpecError, match="got 1 layers, its config lists 2"):
        check_image(*_changed(layers=lambda layers: layers[:1]))


def test_an_artifact_is_no_image() -> None:
    with pytest.raises(SpecError, match="an artifact, expected an image"):
        check_image(*_changed(config=lambda config: {**config, "mediaType": "application/x"}))


def test_r9_a_layer_that_lies_elsewhere_is_not_read() -> None:
    foreign = str(MediaType.OCI_FOREIGN_GZIP)
    with pytest.raises(UnsupportedError, match="is not read"):
        check_image(*_changed(layers=lambda layers: [layers[0], {**layers[1], "mediaType": foreign}]))


def test_an_image_without_layers_is_refused() -> None:
    empty = image([])
    with pytest.raises(SpecError, match="got no layer"):
        check_image(empty.manifest, empty.config)
