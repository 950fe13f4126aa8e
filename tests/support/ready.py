"""A host with a cleared application in its store, ready to start: what tests of starts begin with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ocispec.platform import Platform
from ocispec.reference import Reference
from policy.refusal import Refused
from policy.statements import Clearance
from runtime.admission import Cleared, Proven, admit
from runtime.host import Host
from runtime.images import ImageRecord
from runtime.model import ContainerId
from runtime.pull import Pulled, pull
from runtime.wish import Wish
from tests.support.cleared import ClearedImage, ClearedRegistry, app_image, base_image

AMD64 = Platform.parse("linux/amd64")
WISH = Wish(name=ContainerId("app"))


@dataclass(slots=True)
class Ready:
    """See the module."""

    registry: ClearedRegistry
    host: Host
    app: ClearedImage
    record: ImageRecord

    def pull(self, app: ClearedImage) -> ImageRecord:
        """Pull another cleared image."""
        pulled = pull(
            app.reference, host=self.host, clock=self.registry.clock, platform=AMD64, access=self.registry.access
        )
        assert isinstance(pulled, Pulled), pulled
        return pulled.record

    def start(
        self, reference: Reference | None = None, *, wish: Wish = WISH, now: datetime | None = None
    ) -> Proven | Refused:
        """Prove the image as for a start; what would be mounted is closed again."""
        answer = admit(
            reference or self.app.reference, wish, host=self.host, now=now or self.registry.now, platform=AMD64
        )
        if isinstance(answer, Refused):
            return answer
        with answer as cleared:
            assert isinstance(cleared, Cleared)
            return cleared.proven

    def must_start(self) -> None:
        """The control: everything else being equal, this starts."""
        answer = self.start()
        assert isinstance(answer, Proven), answer

    def keep(self, envelope: bytes) -> None:
        """Put a clearance in the place of the image's own."""
        self.host.store.write_clearance(self.record, envelope)

    def keep_changed(self, change: Callable[[Clearance], Clearance]) -> None:
        """Put a clearance there that says something else, signed by the registry's own key."""
        self.keep(self.registry.seal(change(self.app.clearance)))

    def keep_with(self, **changes: object) -> None:
        """`keep_changed` for single fields."""
        self.keep_changed(lambda clearance: replace(clearance, **changes))  # type: ignore[arg-type]  # values of several types


@contextmanager
def ready(folder: Path) -> Iterator[Ready]:
    """A registry that runs, and a host in `folder` that pulled its application."""
    with ClearedRegistry() as registry:
        app = registry.clear(app_image(base_image()))
        host = registry.enrol(folder)
        pulled = pull(app.reference, host=host, clock=registry.clock, platform=AMD64, access=registry.access)
        assert isinstance(pulled, Pulled), pulled
        yield Ready(registry, host, app, pulled.record)
