"""The table of metrics, its page, and the alert rules that are shipped: promtool lets each of them go off."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from registry.app import open_app
from registry.telemetry.metrics import DESCRIBED, MAX_WORDS, Words, reference
from tests.support.registry import make_registry
from tests.support.tools import need

ROOT: Final = Path(__file__).parents[3]
RULES: Final = ROOT / "deploy" / "prometheus-alerts.yaml"
ALERTS: Final[list[dict[str, Any]]] = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
NAMES: Final = [str(rule["alert"]) for rule in ALERTS]

# A series as promtool's unit tests write it, and when the alert must stand, in minutes. 0+6x90 rises by 6 a minute.
CASES: Final[dict[str, tuple[list[tuple[str, str]], int]]] = {
    "PratiqueNotScraped": ([('up{job="pratique", instance="r:9"}', "0x90")], 5),
    "PratiqueNotReady": ([('pratique_ready{part="storage"}', "0x90")], 3),
    "PratiqueErrors": (
        [
            ('pratique_http_request_seconds_count{status="200"}', "0+90x90"),
            ('pratique_http_request_seconds_count{status="503"}', "0+10x90"),
        ],
        20,
    ),
    "PratiqueSlow": (
        [
            (
                f'pratique_http_request_seconds_bucket{{method="GET", endpoint="manifests.get_manifest", le="{le}"}}',
                rise,
            )
            for le, rise in (("1", "0+90x90"), ("10", "0+100x90"), ("+Inf", "0+100x90"))
        ],
        20,
    ),
    "PratiqueStoreFails": ([('pratique_store_errors_total{operation="read", error="StorageError"}', "0+2x90")], 20),
    "PratiqueDiskFull": ([("pratique_disk_free_bytes", "1000000000x90")], 10),
    "PratiqueJudgeBehind": ([("pratique_job_oldest_due_seconds", "0+60x90")], 30),
    "PratiqueSignerFails": ([("pratique_signer_failures_total", "0+1x90")], 20),
    "PratiqueRevocationListEnds": ([("pratique_revocation_list_expires_seconds", "14000-60x90")], 15),
    "PratiqueClearancesEnded": ([('pratique_clearances_expiring{within="0"}', "2x90")], 70),
    "PratiqueAdvisoriesOld": ([('pratique_advisory_age_seconds{source="debian"}', "300000x90")], 70),
    "PratiqueAuditUnsigned": (
        [("pratique_audit_unsigned_records", "5x90"), ("pratique_audit_checkpoint_age_seconds", "0+60x90")],
        60,
    ),
    "PratiqueBlobsMissing": ([("pratique_collection_missing_blobs", "1x90")], 1),
    "PratiqueCollectionFailed": ([("pratique_collection_failed", "1x90")], 70),
    "PratiqueCertificateEnds": ([("pratique_certificate_expires_seconds", "86400x90")], 70),
    "PratiqueLinesDropped": ([("pratique_log_lines_dropped_total", "0+3x90")], 15),
    "PratiqueMetricsIncomplete": ([('pratique_scrape_failed{group="jobs"}', "1x90")], 15),
}

QUIET: Final = [
    ('up{job="pratique"}', "1x90"),
    ('pratique_ready{part="storage"}', "1x90"),
    ('pratique_http_request_seconds_count{status="200"}', "0+900x90"),
    ('pratique_http_request_seconds_count{status="404"}', "0+900x90"),
    ('pratique_http_request_seconds_count{status="503"}', "0+1x90"),
    ("pratique_disk_free_bytes", "10000000000x90"),
    ("pratique_job_oldest_due_seconds", "0x90"),
    ("pratique_signer_failures_total", "7x90"),
    ("pratique_log_lines_dropped_total", "7x90"),
    ("pratique_revocation_list_expires_seconds", "80000x90"),
    ('pratique_clearances_expiring{within="0"}', "0x90"),
    ('pratique_clearances_expiring{within="3600"}', "5x90"),
    ('pratique_advisory_age_seconds{source="debian"}', "3600x90"),
    ("pratique_audit_unsigned_records", "5x90"),
    ("pratique_audit_checkpoint_age_seconds", "60x90"),
    ("pratique_collection_missing_blobs", "0x90"),
    ("pratique_collection_failed", "0x90"),
    ("pratique_certificate_expires_seconds", "8640000x90"),
    ('pratique_scrape_failed{group="jobs"}', "0x90"),
]


def test_the_page_of_metrics_is_the_one_that_the_code_makes() -> None:
    page = ROOT / "docs" / "metrics.md"
    assert page.read_text() == reference(), "write it again: python -m registry.telemetry.metrics > docs/metrics.md"


def test_names_are_as_prometheus_has_them() -> None:
    names = [each.name for each in DESCRIBED]
    assert len(set(names)) == len(names)
    for each in DESCRIBED:
        assert re.fullmatch(r"pratique_[a-z_]+", each.name)
        assert (each.kind == "counter") == each.name.endswith("_total")
        assert each.doc.endswith(".")


def test_no_label_can_take_endless_values() -> None:
    labels = {label for each in DESCRIBED for label in each.labels}
    assert not labels & {"repository", "tag", "digest", "account", "source_address", "path", "user", "image"}
    words = Words()
    assert [words.bounded(str(number)) for number in range(MAX_WORDS)] == [str(number) for number in range(MAX_WORDS)]
    assert words.bounded("one more") == "other"
    assert words.bounded("3") == "3"


def test_alerts_name_metrics_labels_and_endpoints_that_exist() -> None:
    known = {each.name: set(each.labels) for each in DESCRIBED}
    for each in DESCRIBED:
        if each.kind == "histogram":
            known |= {each.name + end: {*each.labels, *more} for end, more in (("_count", ()), ("_bucket", ("le",)))}
    known["up"] = {"job"}
    for rule in ALERTS:
        used = re.findall(r"\b(pratique_[a-z_]+|up)\b(?:\{([^}]*)\})?", rule["expr"])
        assert used, rule
        for name, selectors in used:
            assert name in known, rule["alert"]
            assert {part.partition("=")[0].strip(" ~!") for part in selectors.split(",") if part} <= known[name]
        shown = set(re.findall(r"\$labels\.([a-z]+)", str(rule["annotations"]))) - {"instance"}
        assert shown <= set().union(*(known[name] for name, _ in used)), rule["alert"]
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_endpoint_of_an_alert_is_one_of_the_application(tmp_path: Path) -> None:
    endpoints = set(open_app(make_registry(tmp_path).settings).view_functions)
    named = {name for rule in ALERTS for name in re.findall(r'endpoint="([^"]*)"', rule["expr"])}
    assert named
    assert named <= endpoints


def _promtool(*arguments: object) -> str:
    done = subprocess.run(
        [need("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_reads_the_rules() -> None:
    assert f"{len(NAMES)} rules found" in _promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def _case(series: list[tuple[str, str]], minutes: int, expected: dict[str, int]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                "eval_time": f"{minutes}m",
                "exp_samples": [{"labels": "{}", "value": count}],
            }
            for name, count in expected.items()
        ],
    }


def test_each_alert_goes_off_when_it_should_and_none_on_a_quiet_day(tmp_path: Path) -> None:
    assert set(CASES) == set(NAMES)
    tests = [_case(series, minutes, {name: 1}) for name, (series, minutes) in CASES.items()]
    tests.append(_case(QUIET, 85, dict.fromkeys(NAMES, 0)))
    file = tmp_path / "alerts.test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    assert "SUCCESS" in _promtool("test", "rules", file)


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_says_where(name: str) -> None:
    (rule,) = [rule for rule in ALERTS if rule["alert"] == name]
    assert rule["annotations"]["summary"].startswith("{{ $labels.instance }}")
