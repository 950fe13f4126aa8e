"""OpenStack Swift with its s3api on loopback: account, container, object and proxy servers and memcached.

Debian's packages swift-account, swift-container, swift-object, swift-proxy and memcached, each a plain process in a
folder of its own. As root they run as root, which is what can be relied on in a container.

    with swift_server(folder) as swift:
        settings = bucket(swift.endpoint, "name", access_key=swift.access_key, secret_key=swift.secret_key)
"""

from __future__ import annotations

import os
import pwd
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.support.processes import end, free_port
from tests.support.tools import lacking, need

KINDS: Final = ("account", "container", "object")

PYTHON: Final = "/usr/bin/python3"
"""Debian's own, which its packages are installed for."""

RINGS: Final = """
import sys
from swift.common.ring import RingBuilder
for kind, port in zip(("account", "container", "object"), sys.argv[2:]):
    builder = RingBuilder(4, 1, 1)
    builder.add_dev(dict(id=0, region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1))
    builder.rebalance(seed=1)
    builder.get_ring().save(sys.argv[1] + "/" + kind + ".ring.gz")
"""
"""swift-ring-builder's own steps, in one process instead of nine."""

STORAGE: Final = """[DEFAULT]
devices = {folder}/srv
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
recon_cache_path = {folder}/cache
workers = 0
log_level = WARNING
disable_fallocate = true
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

PROXY: Final = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
workers = 0
log_level = WARNING
[pipeline:main]
pipeline = catch_errors cache listing_formats s3api tempauth copy slo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:{cache_port}
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret_key} .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
"""
"""Limits (1,000 parts, parts of 5 MiB at least, 1,000 names a page) are left as Swift has them: they are the test."""

_READY_SECONDS: Final = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Swift:
    """A running Swift: the address of its S3 API, and the one account's keys."""

    endpoint: str
    access_key: str
    secret_key: str


@contextmanager
def swift_server(folder: Path) -> Iterator[Swift]:
    """A new, empty Swift in `folder`; its logs are there too, and are shown if it does not start."""
    programs = {kind: need(f"swift-{kind}-server") for kind in KINDS}
    proxy, memcached, setpriv = need("swift-proxy-server"), need("memcached"), need("setpriv")
    _check_attributes(folder)
    user = pwd.getpwuid(os.geteuid()).pw_name
    ports = {kind: free_port() for kind in KINDS}
    cache_port, port, secret_key = free_port(), free_port(), secrets.token_hex(16)
    for name in ("srv/d1", "cache"):
        (folder / name).mkdir(parents=True)
    (folder / "swift.conf").write_text(f"[swift-hash]\nswift_hash_path_suffix = {secrets.token_hex(8)}\n")
    for kind in KINDS:
        text = STORAGE.format(folder=folder, port=ports[kind], user=user, kind=kind)
        (folder / f"{kind}.conf").write_text(text)
    values = {"folder": folder, "port": port, "user": user, "cache_port": cache_port, "secret_key": secret_key}
    (folder / "proxy.conf").write_text(PROXY.format(**values))
    numbers = [str(ports[kind]) for kind in KINDS]
    subprocess.run([PYTHON, "-W", "ignore", "-c", RINGS, folder, *numbers], check=True, timeout=60)
    commands = {kind: [program, f"{folder}/{kind}.conf", "-v"] for kind, program in programs.items()}
    commands["proxy"] = [proxy, f"{folder}/proxy.conf", "-v"]
    commands["memcached"] = [memcached, "-u", user, "-l", "127.0.0.1", "-p", str(cache_port), "-U", "0"]
    with ExitStack() as stack:
        running = {}
        for name, command in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                # A worker that is killed takes its servers with it.
                process = subprocess.Popen([setpriv, "--pdeathsig", "KILL", *command], stdout=log, stderr=log)
            stack.callback(end, process)
            running[name] = process
        _wait_until_ready(f"http://127.0.0.1:{port}", secret_key, running, folder)
        yield Swift(endpoint=f"http://127.0.0.1:{port}", access_key="test:tester", secret_key=secret_key)


def _wait_until_ready(
    endpoint: str, secret_key: str, running: dict[str, subprocess.Popen[bytes]], folder: Path
) -> None:
    """Return when the proxy answers and all behind it do: an account's listing asks them."""
    deadline = time.monotonic() + _READY_SECONDS
    problem = ""
    while time.monotonic() < deadline:
        for name, process in running.items():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended with {process.returncode}:\n{_logs(folder)}")
        problem = _list_buckets(endpoint, secret_key)
        if not problem:
            return
        time.sleep(0.1)
    raise AssertionError(f"Swift is not ready after {_READY_SECONDS} s: {problem}\n{_logs(folder)}")


def _list_buckets(endpoint: str, secret_key: str) -> str:
    """What goes wrong with it, or nothing."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test:tester",
        aws_secret_access_key=secret_key,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=10),
    )
    try:
        client.list_buckets()
    except (ClientError, BotoCoreError) as error:
        return str(error)
    finally:
        client.close()
    return ""


def _check_attributes(folder: Path) -> None:
    """Swift keeps what it knows of an object in its file's extended attributes."""
    probe = folder / "probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.swift", b"x")
    except OSError as error:
        lacking(f"a file system with extended attributes at {folder} ({error.strerror})")
    finally:
        probe.unlink()


def _logs(folder: Path) -> str:
    return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in sorted(folder.glob("*.log")))
