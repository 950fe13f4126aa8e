"""What is counted, and what is read at each scrape: one table, from which docs/metrics.md is made.

Counters and histograms live in the processes that count; where PROMETHEUS_MULTIPROC_DIR is set, in files there that
the exporter adds up (prometheus_client's multiprocess mode), else in memory. Labels take few values by their kind:
no name of a repository, tag or account is ever one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MAX_WORDS: Final = 64
"""Values that a label takes whose words come from elsewhere, like codes of reasons; later ones are `other`."""

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
_SLOW: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A metric as it is documented; `where` says who keeps it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    doc: str
    where: str


DESCRIBED: Final[list[Described]] = []
"""All metrics, in the order of their table."""

_REGISTRY: Final = CollectorRegistry()


def _counter(name: str, doc: str, *labels: str, where: str) -> Counter:
    DESCRIBED.append(Described(name=name, kind="counter", labels=labels, doc=doc, where=where))
    return Counter(name, doc, labels, registry=_REGISTRY)


def _histogram(name: str, doc: str, *labels: str, where: str, buckets: Sequence[float]) -> Histogram:
    DESCRIBED.append(Described(name=name, kind="histogram", labels=labels, doc=doc, where=where))
    return Histogram(name, doc, labels, registry=_REGISTRY, buckets=buckets)


def _gauge(name: str, doc: str, *labels: str, where: str) -> Gauge:
    """One whose value is the sum over the processes that live."""
    DESCRIBED.append(Described(name=name, kind="gauge", labels=labels, doc=doc, where=where))
    return Gauge(name, doc, labels, registry=_REGISTRY, multiprocess_mode="livesum")


def _scraped(name: str, doc: str, *labels: str) -> Described:
    """One that the exporter reads when it is asked."""
    made = Described(name=name, kind="gauge", labels=labels, doc=doc, where="exporter")
    DESCRIBED.append(made)
    return made


# ---- requests -------------------------------------------------------------------------------------------------------

REQUEST_SECONDS: Final = _histogram(
    "pratique_http_request_seconds",
    "Requests, from their head to the last byte of the answer.",
    "method",
    "endpoint",
    "status",
    where="web",
    buckets=_FAST,
)
RECEIVED: Final = _counter("pratique_http_received_bytes_total", "Bytes of requests' bodies.", where="web")
SENT: Final = _counter("pratique_http_sent_bytes_total", "Bytes of answers' bodies.", where="web")
IN_FLIGHT: Final = _gauge("pratique_http_requests", "Requests under way.", where="web")
BODIES: Final = _gauge("pratique_bodies", "Request bodies being received, uploads among them.", where="web")
LINES_DROPPED: Final = _counter(
    "pratique_log_lines_dropped_total", "Log lines that standard error did not take in time.", where="web"
)
READS_WAITING: Final = _gauge(
    "pratique_audit_reads_waiting", "Reads that were answered and are not in the audit yet.", where="web"
)

# ---- storage and catalogue ------------------------------------------------------------------------------------------

STORE_SECONDS: Final = _histogram(
    "pratique_store_seconds",
    "Calls of the store, up to the first byte of what is read; of an upload, with the time that the client takes.",
    "operation",
    where="web, judge, mirror",
    buckets=_FAST,
)
STORE_ERRORS: Final = _counter(
    "pratique_store_errors_total",
    "Calls of the store that failed, by the class of the error.",
    "operation",
    "error",
    where="web, judge",
)
CONNECTIONS: Final = _gauge(
    "pratique_catalogue_connections", "Connections to the catalogue: `used` and `idle`.", "state", where="web"
)

# ---- judging --------------------------------------------------------------------------------------------------------

JOB_SECONDS: Final = _histogram(
    "pratique_job_seconds",
    "Jobs of the judge, from the time that they are due to their end.",
    "kind",
    where="judge",
    buckets=_SLOW,
)
JOB_ERRORS: Final = _counter(
    "pratique_job_errors_total", "Attempts at a job that failed; it is tried again.", "kind", where="judge"
)
COLLECTIONS: Final = _counter(
    "pratique_collections_total",
    "Runs of the collector that ended here: `done`, `failed`, or `died` (and are taken up again).",
    "outcome",
    where="judge",
)
COLLECTED: Final = _counter("pratique_collected_bytes_total", "Bytes that they took out of the store.", where="judge")
DECISIONS: Final = _counter(
    "pratique_decisions_total",
    "What judgements came to: the state, and the code of its reason.",
    "state",
    "reason",
    where="judge",
)
SIGNER_SECONDS: Final = _histogram(
    "pratique_signer_seconds", "Questions to the signer.", "operation", where="judge", buckets=_FAST
)
SIGNER_REFUSALS: Final = _counter(
    "pratique_signer_refusals_total", "What the signer refused, by the code of its reason.", "code", where="judge"
)
SIGNER_FAILURES: Final = _counter(
    "pratique_signer_failures_total", "Questions that the signer did not answer.", where="judge"
)

# ---- read at each scrape --------------------------------------------------------------------------------------------

READY: Final = _scraped("pratique_ready", "1 if this part can be used, as `/readyz` looks at it.", "part")
JOBS: Final = _scraped("pratique_jobs", "The judge's queue: `due`, `claimed` and `later` jobs.", "kind", "state")
OLDEST_JOB: Final = _scraped("pratique_job_oldest_due_seconds", "How long the oldest job is due that nobody does.")
IMAGES: Final = _scraped("pratique_images", "Images, by state.", "state")
UPLOADS: Final = _scraped("pratique_uploads", "Upload sessions that are open.")
EXPIRING: Final = _scraped(
    "pratique_clearances_expiring", "Clearances that end within so many seconds, or have ended.", "within"
)
LIST_NUMBER: Final = _scraped("pratique_revocation_list_number", "Number of the revocation list that is served.")
LIST_AGE: Final = _scraped(
    "pratique_revocation_list_age_seconds", "Since when the list's newest date was signed; hosts refuse an old one."
)
LIST_ENDS: Final = _scraped(
    "pratique_revocation_list_expires_seconds", "In how many seconds the list's newest date ends; negative after it."
)
ADVISORY_AGE: Final = _scraped(
    "pratique_advisory_age_seconds", "Age of each source of advisory data, by its own date.", "source"
)
UNSIGNED: Final = _scraped(
    "pratique_audit_unsigned_records", "Records of the audit behind the newest signed checkpoint."
)
CHECKPOINT_AGE: Final = _scraped("pratique_audit_checkpoint_age_seconds", "Age of the newest signed checkpoint.")
COLLECTION_AGE: Final = _scraped("pratique_collection_age_seconds", "Since when the newest garbage collection is over.")
COLLECTION_FAILED: Final = _scraped("pratique_collection_failed", "1 if it failed.")
COLLECTION_FREED: Final = _scraped("pratique_collection_freed_bytes", "Bytes that it freed.")
COLLECTION_MISSING: Final = _scraped(
    "pratique_collection_missing_blobs", "Blobs that it found in the catalogue and not in the store."
)
MEMORY: Final = _scraped(
    "pratique_process_resident_bytes", "Memory of the registry's processes, by what they are.", "process"
)
CPU: Final = _scraped("pratique_process_cpu_seconds", "Processor time of the processes that live.", "process")
PROCESSES: Final = _scraped("pratique_processes", "Processes that live; children of the keeper among them.", "process")
DISK_FREE: Final = _scraped("pratique_disk_free_bytes", "Bytes that are free where the data folder is.")
CERTIFICATE_ENDS: Final = _scraped(
    "pratique_certificate_expires_seconds", "In how many seconds `http.certificate` ends, if the exporter may read it."
)
SCRAPE_FAILED: Final = _scraped(
    "pratique_scrape_failed", "1 for a group of the metrics above that could not be read.", "group"
)


class Words:
    """Keeps a label to few values: the first MAX_WORDS words, and `other` for all that come later."""

    def __init__(self) -> None:
        """None is known yet."""
        self._known: set[str] = set()

    def bounded(self, word: str) -> str:
        """`word`, or `other`."""
        if word in self._known:
            return word
        if len(self._known) >= MAX_WORDS:
            return "other"
        self._known.add(word)
        return word


REASONS: Final = Words()
CODES: Final = Words()


def reference() -> str:
    """Every metric with its labels and meaning: the text of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "What `GET /metrics` at `metrics.listen` answers, for Prometheus. Rules for alerts are in",
        "`deploy/prometheus-alerts.yaml`. This page is made from registry/telemetry/metrics.py; a test keeps it so.",
        "",
        "| metric | kind | labels | meaning |",
        "| --- | --- | --- | --- |",
        *(
            f"| `{each.name}` | {each.kind} | {', '.join(f'`{label}`' for label in each.labels)} | {each.doc} |"
            for each in DESCRIBED
        ),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
