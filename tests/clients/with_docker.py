"""Run by test_docker.py in mount and process namespaces of its own: docker pushes an image, and pulls it again.

Arguments: a folder, the registry's address, and the pusher's secret. dockerd has neither bridge nor iptables; it
takes registries on loopback without TLS.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.support.images import image
from tests.support.processes import end


def main(folder: Path, registry: str, secret: str) -> None:
    """Load, push, remove, pull; the image must be the same."""
    socket = f"unix://{folder}/docker.sock"
    built = image([{"etc/": b"", "etc/motd": "hello\n"}, {"srv/": b"", "srv/x": "1" * 50_000}])
    archive = built.write_docker_archive(folder / "image.tar")

    def docker(*arguments: object, stdin: str = "") -> str:
        words = ["docker", "--config", str(folder / "config"), "-H", socket, *(str(word) for word in arguments)]
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}\n{log.read_text()[-2000:]}"
        return done.stdout

    log = folder / "dockerd.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [
                *("dockerd", "-H", socket, "--pidfile", folder / "docker.pid", "--storage-driver", "vfs"),
                *("--data-root", folder / "root", "--exec-root", folder / "exec"),
                *("--bridge=none", "--iptables=false", "--ip6tables=false"),
            ],
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + 60
        while not (folder / "docker.sock").exists():
            assert daemon.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)
        name = f"{registry}/clients/docker:1"
        docker("login", "-u", "pusher", "--password-stdin", registry, stdin=secret)
        docker("load", "-i", archive)
        docker("tag", "example.test/image:1", name)
        docker("push", name)
        docker("rmi", "-f", name, "example.test/image:1")
        docker("pull", name)
        assert docker("images", "-q", "--no-trunc", name).strip() == str(built.config.digest)
    finally:
        end(daemon, seconds=30)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
