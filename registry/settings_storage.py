"""The settings of where blobs are kept: `storage`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from registry import settings_checks as checks
from registry.errors import SettingsError
from registry.settings_checks import Key, Section, choice, number

_MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """`storage.s3`: a bucket of an S3-compatible engine."""

    bucket: Annotated[str, Key("Name of the bucket; it must exist.", checks.text)]
    access_key: Annotated[
        str,
        Key(
            "Access key id; without it, and `secret_key`, what the environment gives: AWS_ACCESS_KEY_ID and its like, "
            "or the machine's role.",
            checks.text,
        ),
    ] = ""
    secret_key: Annotated[str, Key("Secret key; none that everybody knows.", checks.secret)] = field(
        default="", repr=False
    )
    endpoint: Annotated[str, Key("Address of the engine; without it Amazon's own.", checks.url)] = ""
    region: Annotated[str, Key("Region to sign for.", checks.text)] = "us-east-1"
    prefix: Annotated[str, Key("Put in front of every key, e.g. `registry/`.", checks.prefix)] = ""
    addressing: Annotated[str, Key("How the bucket is named: `path` or `virtual`.", choice("path", "virtual"))] = "path"
    ca_file: Annotated[Path | None, Key("Certificates to check the engine's by, not the system's.", checks.path)] = None
    part_size: Annotated[
        int,
        Key("Bytes of a part of a multipart upload; each upload holds one in memory.", number(5 * _MIB, 512 * _MIB)),
    ] = 8 * _MIB
    max_parts: Annotated[
        int,
        Key(
            "Parts that the engine takes in one multipart upload: 10000 with Amazon, 1000 with Swift. With `part_size` "
            "it bounds a blob.",
            number(1, 10_000),
        ),
    ] = 10_000
    memory: Annotated[
        int,
        Key(
            "Bytes of parts that one process holds at a time; an upload for which there is no room waits, and is "
            "answered 429 after `deadline`.",
            number(5 * _MIB, 2**40),
        ),
    ] = 256 * _MIB
    encryption: Annotated[
        str,
        Key(
            "How the engine is to encrypt what it keeps: `none`, `AES256` or `aws:kms`.",
            choice(*("none", "AES256", "aws:kms")),
        ),
    ] = "none"
    kms_key: Annotated[str, Key("Key id for `aws:kms`; without it the bucket's.", checks.text)] = ""
    timeout: Annotated[
        int, Key("Seconds of silence until a request to the engine counts as failed.", number(1, 600))
    ] = 20
    deadline: Annotated[
        int,
        Key(
            "Seconds that one call of the engine may take in all, with retries, if it moves no bytes.", number(1, 3600)
        ),
    ] = 60
    minimum_rate: Annotated[
        int,
        Key(
            "Bytes a second for which a call's time grows by a second; a slower engine counts as failed.",
            number(1024, 2**40),
        ),
    ] = 256 * 1024
    redirects: Annotated[
        int,
        Key(
            "Seconds that an address of a blob at the engine is good for; GET of a blob is then answered 307 with such "
            "an address. 0: blobs come through the registry.",
            number(0, 60),
        ),
    ] = 0
    redirect_endpoint: Annotated[
        str, Key("Address of the engine as clients reach it; without it `endpoint`.", checks.url)
    ] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """`storage`: where blobs are kept."""

    engine: Annotated[str, Key("`files` (in `data`/store) or `s3`.", choice("files", "s3"))] = "files"
    s3: Annotated[S3Settings | None, Section("Needed when the engine is `s3`, and only then.", S3Settings)] = None

    def check(self) -> None:
        """Compare the keys with each other.

        Raises:
            SettingsError: two of them do not fit.
        """
        if (self.engine == "s3") != (self.s3 is not None):
            raise SettingsError("setting storage.s3: expected exactly where storage.engine is s3")
        if self.s3 is None:
            return
        if bool(self.s3.access_key) != bool(self.s3.secret_key):
            raise SettingsError(
                "setting storage.s3.access_key: expected together with storage.s3.secret_key, or neither"
            )
        if self.s3.kms_key and self.s3.encryption != "aws:kms":
            raise SettingsError("setting storage.s3.kms_key: expected only where storage.s3.encryption is aws:kms")
        if self.s3.memory < self.s3.part_size:
            raise SettingsError(
                f"setting storage.s3.memory: got {self.s3.memory}, expected at least part_size, {self.s3.part_size}"
            )
        if self.s3.redirect_endpoint and not self.s3.redirects:
            raise SettingsError("setting storage.s3.redirect_endpoint: expected only where storage.s3.redirects is set")


STORAGE: Final = StorageSettings()
"""Files, as without a setting."""
