"""Where the demo's registry keeps blobs: files, or an S3 server that the demo starts (`STORAGE=s3`)."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

from demo.stage import DemoFailedError, Stage

BUCKET = "layers"


class Files:
    """Blobs in a folder below the registry's data."""

    def settings(self) -> str:
        """What registry.yaml says of it."""
        return ""

    def start(self, stage: Stage) -> None:
        """Nothing is needed."""

    def look(self, stage: Stage) -> None:
        """Show what is there."""
        store = stage.folder / "registry" / "store" / "blobs"
        sizes = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
        stage.say(f"the store's folder holds {len(sizes)} blobs, {sum(sizes) / 1e6:.1f} MB")

    def stop(self) -> None:
        """Nothing is left."""


class S3:
    """Blobs in a bucket of moto's S3 server, which keeps it in memory."""

    def __init__(self, port: int) -> None:
        """Listen at a loopback port, once it is started."""
        self._port = port
        self._key, self._secret = "demo", secrets.token_hex(20)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def settings(self) -> str:
        """What registry.yaml says of it; parts as small as S3 allows, so that the base is an upload of several."""
        s3 = {
            "bucket": BUCKET,
            "endpoint": self.endpoint,
            "access_key": self._key,
            "secret_key": self._secret,
            "part_size": 5 * 2**20,
        }
        return yaml.safe_dump({"storage": {"engine": "s3", "s3": s3}})

    def start(self, stage: Stage) -> None:
        """Start the server, and make the bucket.

        Raises:
            DemoFailedError: it does not come up.
        """
        command = (sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port))
        log = stage.folder / "s3.log"
        self._process = stage.start(*command, log=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                self._client().create_bucket(Bucket=BUCKET)
                break
            except (BotoCoreError, ClientError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise DemoFailedError(f"the S3 server: {error}\n{log.read_text()[-2000:]}") from error
                time.sleep(0.1)
        stage.say(f"    bucket {BUCKET} made at {self.endpoint}")

    def look(self, stage: Stage) -> None:
        """Show what is in the bucket; no blob may lie anywhere else.

        Raises:
            DemoFailedError: it does, or the bucket is empty.
        """
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="blobs/")
        sizes = [item["Size"] for page in pages for item in page.get("Contents", ())]
        stage.say(f"the bucket holds {len(sizes)} blobs, {sum(sizes) / 1e6:.1f} MB")
        local = [path for path in _files(stage.folder / "registry" / "store") if "blobs" in path.parts]
        if not sizes or local:
            raise DemoFailedError(f"expected all blobs in the bucket: got {len(sizes)} there, {len(local)} in files")

    def stop(self) -> None:
        """End the server."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(30)

    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self._key,
            aws_secret_access_key=self._secret,
        )


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def storage(name: str, port: int) -> Files | S3:
    """The kind of storage called `name`, a server of which listens at `port`.

    Raises:
        DemoFailedError: there is none.
    """
    if name == "files":
        return Files()
    if name == "s3":
        return S3(port)
    raise DemoFailedError(f"STORAGE={name}: expected files or s3")
