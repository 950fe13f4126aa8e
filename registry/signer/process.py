"""The signer as a process: it gives up root before it reads its key, and serves until SIGTERM."""

from __future__ import annotations

import os
import socket
from functools import cache

from ocispec.digest import Digest
from policy.key_files import read_private
from policy.keys import Algorithm
from policy.load import default_document
from policy.load import load as load_policy
from policy.private_key import PrivateKey
from policy.spdx import parse_expression
from policy.statements import AuditCheckpoint
from policy.wire import encode
from registry import processes
from registry.forked import apart
from registry.places import Places
from registry.settings import Settings
from registry.signer.identity import open_memory
from registry.signer.server import Server
from registry.signer.signer import Signer
from registry.sockets import bind


def run(settings: Settings, _number: int) -> None:
    """Serve until SIGTERM."""
    places, judge = Places(settings), processes.judge_uid(settings)
    listener = bind(places.signer_socket, socket.SOCK_STREAM, mode=0o600, owner=(judge, -1))
    warm_signing()
    # A database's driver is imported with the first connection, while root can still read it.
    shared = open_memory(settings) if settings.signer.memory is not None else None
    processes.become(settings.users.signer, "users.signer", settings)
    os.umask(0o077)
    if shared is None:
        # What makes tables, or takes older ones over, runs once; nothing of it stays in this process.
        apart(lambda: open_memory(settings).close())
    memory = shared if shared is not None else open_memory(settings, made=True)
    key = read_private(places.signer_key)
    memory.bind_key(key.public.id)
    signer = Signer(key=key, registry=settings.name, memory=memory, clock=processes.utc_now)
    stop = processes.stop_flag(places.log_level)
    with listener:
        Server(listener=listener, signer=signer, allowed={judge}).run(stop)
    memory.close()


@cache
def warm_signing() -> None:
    """Use once what is imported when it is first used, while it can be read; a process that was forked inherits it."""
    for algorithm in Algorithm:
        key = PrivateKey.generate(algorithm)
        PrivateKey.from_pem(key.to_pem())
        key.public.verifies(b"", key.sign(b""))
    encode(AuditCheckpoint(registry="localhost", records=1, head=Digest.of(b""), issued=processes.utc_now()))
    load_policy(default_document())
    parse_expression("MIT OR Apache-2.0 WITH LLVM-exception")
