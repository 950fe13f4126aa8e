"""A real S3 server for tests: moto's, as a process on a loopback port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import boto3

from registry.settings_storage import S3Settings
from tests.support.processes import end, free_port, wait_for_port

SECRET: Final = "a-secret-of-the-tests"


@contextmanager
def s3_server(folder: Path, *, smallest_part: int = 5 * 2**20, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """The endpoint of a new, empty server; its log goes to `folder`.

    All parts of a multipart upload but the last have `smallest_part` bytes at least, Amazon's limit if none is said.
    With `tls`, a certificate chain and its key, it is reached by https.
    """
    port = free_port()
    secure = ["-s", "-c", str(tls[0]), "-k", str(tls[1])] if tls is not None else []
    log = folder / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port), *secure],
            stdout=output,
            stderr=output,
            env={**os.environ, "S3_UPLOAD_PART_MIN_SIZE": str(smallest_part)},
        )
    try:
        wait_for_port(port, process, log, seconds=60)
        yield f"{'https' if secure else 'http'}://127.0.0.1:{port}"
    finally:
        end(process)


def bucket(
    endpoint: str,
    name: str,
    *,
    access_key: str = "tester",
    secret_key: str = SECRET,
    ca_file: Path | None = None,
    part_size: int = 5 * 2**20,
    **settings: Any,
) -> S3Settings:
    """Settings for a new bucket on `endpoint`, with `settings` of `S3Settings` beside."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        verify=str(ca_file) if ca_file is not None else None,
    )
    client.create_bucket(Bucket=name)
    client.close()
    return S3Settings(
        bucket=name,
        access_key=access_key,
        secret_key=secret_key,
        endpoint=endpoint,
        ca_file=ca_file,
        part_size=part_size,
        **settings,
    )


def members(settings: S3Settings) -> dict[str, object]:
    """The same as the file of settings has it, under `storage`."""
    found = {name: value for name, value in asdict(settings).items() if value not in {None, "", 0}}
    return {
        "engine": "s3",
        "s3": {name: str(value) if isinstance(value, Path) else value for name, value in found.items()},
    }
