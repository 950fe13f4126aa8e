"""A real S3 server for tests: moto's, as a process on a loopback port."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from registry.settings_storage import S3Settings
from tests.support.processes import end, free_port, wait_for_port


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """The endpoint of a new, empty server; its log goes to `folder`."""
    port = free_port()
    log = folder / "moto.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=output,
        )
    try:
        wait_for_port(port, process, log, seconds=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


def bucket(endpoint: str, name: str, *, part_size: int = 5 * 2**20) -> S3Settings:
    """Settings for a new bucket on `endpoint`."""
    settings = S3Settings(
        bucket=name, access_key="tester", secret_key="a-secret-of-the-tests", endpoint=endpoint, part_size=part_size
    )
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
    )
    client.create_bucket(Bucket=name)
    client.close()
    return settings
