"""How long a Decision takes: 100 rules on 400 components, and how that grows with either.

Run by `python -m benchmarks.policy`. Ratios matter, not the times; the growth must stay near linear. Beside it stands
what a policy costs to load, as a registry does it and as a host does.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from policy.codec import decode_evidence, encode_evidence
from policy.document import read_document
from policy.evaluate import evaluate
from policy.load import default_document, load, load_verified
from policy.model import Evidence, Signed
from policy.settings import Policy
from policy.statements import Statement
from tests.support.evidence import advisory, case, component, statements_of, waive

LICENCES = (
    "MIT",
    "Apache-2.0 OR GPL-2.0-only",
    "BSD-3-Clause AND MIT",
    "GPL-2.0-or-later WITH Classpath-exception-2.0",
)


def policy_of(rules: int) -> Policy:
    """The default policy with so many rules: lists of components and licences, as large policies have."""
    made: list[dict[str, object]] = []
    for number in range(rules):
        if number % 2:
            entry = {"purl": f"pkg:*/*forbidden-{number}*", "versions": ["<1.0"], "reason": "benchmark"}
            made.append({"rule": "components", "name": f"components-{number}", "deny": [entry]})
        else:
            made.append({"rule": "licences", "name": f"licences-{number}", "deny": [f"LicenseRef-no-{number}"]})
    value = read_document(default_document())
    return load(json.dumps(value | {"rules": made, "waivers": []}).encode())


def evidence_of(components: int, findings: int = 40) -> Evidence:
    """Evidence on an image of so many components, with some advisories and waivers."""
    found = tuple(
        component(
            f"package-{number}", f"1.{number}", kind="deb" if number % 3 else "pypi", licences=LICENCES[number % 4]
        )
        for number in range(components)
    )
    met = tuple(
        advisory(found[number % components].purl, id=f"CVE-2026-{number}", aliases=(), fixed_in="")
        for number in range(findings)
    )
    return case().evidence(components=found, findings=met, waivers=tuple(waive(advisory=f"CVE-{n}") for n in range(10)))


def median_ms(work: Callable[[], object], times: int = 9) -> float:
    """The median of some runs, in milliseconds, after one that fills the caches."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def main() -> None:
    """Measure, and print a table."""
    small = policy_of(100)
    for rules, components in ((100, 400), (200, 400), (50, 400), (100, 800), (100, 1600), (10, 400)):
        policy, evidence = (small if rules == 100 else policy_of(rules)), evidence_of(components)
        decision = evaluate(policy, evidence)
        assert decision.allowed, decision.refusals[:1]
        took = median_ms(partial(evaluate, policy, evidence))
        print(f"evaluate  {rules:4} rules x {components:5} components   {took:8.1f} ms")
    _codec()
    document = default_document()
    as_json = json.dumps(read_document(document)).encode()
    print(f"load      with schema                     {median_ms(lambda: load(document)):8.1f} ms")
    print(f"load      as a host, YAML                 {median_ms(lambda: load_verified(document)):8.1f} ms")
    print(f"load      as a host, JSON                 {median_ms(lambda: load_verified(as_json)):8.1f} ms")


def _codec() -> None:
    evidence = replace(evidence_of(400), waivers=())
    known = {signed.envelope: signed for signed in statements_of(evidence)}

    def verify(envelope: bytes) -> Signed[Statement]:
        return known[envelope]

    raw = encode_evidence(evidence)
    print(f"encode    evidence of {len(raw):7} bytes        {median_ms(lambda: encode_evidence(evidence)):8.1f} ms")
    print(f"decode    (signatures aside)              {median_ms(lambda: decode_evidence(raw, verify)):8.1f} ms")


if __name__ == "__main__":
    main()
