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
    what = f"tag {registry}/{repository}:{tag}"
    try:
        signed = trust.verify(envelope, TagStatement, now)  # (1)
        said = signed.statement
        _expect("other-registry", what, said.registry, registry)  # (2)
        _expect("other-repository", what, said.repository, repository)
        _expect("other-tag", what, said.tag, tag)
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
        _expect("other-registry", what, said.registry, registry)  # (2)
        _expect("other-repository", what, said.repository, repository)
        _expect("other-digest", what, str(said.index), str(index))
        _expect_child(what, said.children, child)  # (3)
        return signed, see_time(state, said.issued, now)
    except TrustError as error:
        return Refused.of(error)


def _expect(code: str, what: str, said: str, wanted: str) -> None:
    if said != wanted:
        raise TrustError(code, what, f"the statement is for {said}, expected {wanted}")


def _expect_child(what: str, children: tuple[Digest, ...], child: Digest) -> None:
    if child not in children:
        raise TrustError("child-not-cleared", what, f"child {child} is not among the {len(children)} cleared")
