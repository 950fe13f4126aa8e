"""What a tag serves and which children of an index are cleared: the host's side of two registry statements."""

from __future__ import annotations

from datetime import datetime

from ocispec.digest import Digest
from policy.errors import TrustError
from policy.hoststate import HostState, see_tag, see_time
from policy.model import Signed
from policy.refusal import Refused
from policy.statements import IndexClearance, TagStatement
from policy.trust import Trust


def verify_tag(
    envelope: bytes, *, registry: str, repository: str, tag: str, trust: Trust, state: HostState, now: datetime
) -> tuple[Signed[TagStatement], HostState] | Refused:
    """Prove what the tag serves, and return that with the host's new memory.

    1. The registry's key signed it. 2. It is for this registry, repository and tag. 3. Its number may follow
    the one that the host has seen (an older served tag is refused: S6, S12). A reference by digest needs none
    of this. `trust` must be without the keys that the revocation list names.
    """
    try:
        signed = trust.verify(envelope, TagStatement, now)  # (1)
        said = signed.statement
        for code, cleared, wanted in (  # (2)
            ("other-registry", said.registry, registry),
            ("other-repository", said.repository, repository),
            ("other-tag", said.tag, tag),
        ):
            if cleared != wanted:
                what = f"tag {registry}/{repository}:{tag}"
                raise TrustError(code, what, f"the statement is for {cleared}, expected {wanted}")
        return signed, see_tag(state, signed, now)  # (3)
    except TrustError as error:
        return Refused.of(error)


def verify_index(
    envelope: bytes,
    *,
    registry: str,
    repository: str,
    index: Digest,
    child: Digest,
    trust: Trust,
    state: HostState,
    now: datetime,
) -> tuple[Signed[IndexClearance], HostState] | Refused:
    """Prove that `child` was cleared as a child of `index`, and return that with the host's new memory.

    1. The registry's key signed it, and it has not expired. 2. It is for this registry, repository and index.
    3. It lists the child. The child has a clearance of its own, which is proven as for any manifest.
    """
    what = f"index {registry}/{repository}@{index}"
    try:
        signed = trust.verify(envelope, IndexClearance, now)  # (1)
        said = signed.statement
        for code, cleared, wanted in (  # (2)
            ("other-registry", said.registry, registry),
            ("other-repository", said.repository, repository),
            ("other-digest", str(said.index), str(index)),
        ):
            if cleared != wanted:
                raise TrustError(code, what, f"the clearance is for {cleared}, expected {wanted}")
        if child not in said.children:  # (3)
            raise TrustError("child-not-cleared", what, f"child {child} is not among the {len(said.children)} cleared")
        return signed, see_time(state, said.issued, now)
    except TrustError as error:
        return Refused.of(error)
