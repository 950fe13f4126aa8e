"""Severities: from words that databases use, and from CVSS vectors.

CVSS v3.0/v3.1: specification section 7.1 (base equations) and 5 (qualitative scale); v2: section 3.2.1 of its
guide. CVSS v4 needs a table of 270 looked-up scores; records that carry only a v4 vector carry a word too. A
score that cannot be read counts as critical: a severity is a reason to refuse, never to let pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from scanner.model import Severity

WORDS: Final[Mapping[str, Severity]] = {
    "critical": Severity.CRITICAL,
    "important": Severity.HIGH,
    "high": Severity.HIGH,
    "moderate": Severity.MEDIUM,
    "medium": Severity.MEDIUM,
    "low": Severity.LOW,
    "negligible": Severity.LOW,
    "unimportant": Severity.LOW,
}

_ORDER: Final = (Severity.NONE, Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL)

_V3: Final[Mapping[str, Mapping[str, float]]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "UI": {"N": 0.85, "R": 0.62},
    "C": {"H": 0.56, "L": 0.22, "N": 0.0},
    "I": {"H": 0.56, "L": 0.22, "N": 0.0},
    "A": {"H": 0.56, "L": 0.22, "N": 0.0},
}
_V3_PRIVILEGES: Final[Mapping[str, Mapping[str, float]]] = {
    "U": {"N": 0.85, "L": 0.62, "H": 0.27},
    "C": {"N": 0.85, "L": 0.68, "H": 0.5},
}
_V2: Final[Mapping[str, Mapping[str, float]]] = {
    "AV": {"L": 0.395, "A": 0.646, "N": 1.0},
    "AC": {"H": 0.35, "M": 0.61, "L": 0.71},
    "Au": {"M": 0.45, "S": 0.56, "N": 0.704},
    "C": {"N": 0.0, "P": 0.275, "C": 0.66},
    "I": {"N": 0.0, "P": 0.275, "C": 0.66},
    "A": {"N": 0.0, "P": 0.275, "C": 0.66},
}


def worst(*severities: Severity) -> Severity:
    """The highest of some severities; NONE if there are none."""
    return max(severities, key=_ORDER.index, default=Severity.NONE)


def from_word(word: str) -> Severity:
    """The severity that a database's word means; NONE for a word that means none."""
    return WORDS.get(word.lower(), Severity.NONE)


def from_score(kind: str, score: str) -> Severity:
    """The severity of one OSV `severity` item: a CVSS vector or Ubuntu's priority."""
    if kind == "Ubuntu":
        return from_word(score)
    try:
        if kind == "CVSS_V3":
            return _scale(_v3(_metrics(score.partition("/")[2])))
        if kind == "CVSS_V2":
            return _scale_v2(_v2(_metrics(score)))
    except KeyError:
        pass
    return Severity.CRITICAL


def _metrics(vector: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.partition(":") for part in vector.split("/"))}


def _scale(score: float) -> Severity:
    for bound, severity in ((9.0, Severity.CRITICAL), (7.0, Severity.HIGH), (4.0, Severity.MEDIUM)):
        if score >= bound:
            return severity
    return Severity.LOW if score > 0 else Severity.NONE


def _scale_v2(score: float) -> Severity:
    # NVD's scale of v2 ends with "high", at 7.0.
    return min(_scale(score), Severity.HIGH, key=_ORDER.index)


def _v3(metrics: Mapping[str, str]) -> float:
    weight = {name: values[metrics[name]] for name, values in _V3.items()}
    scope = metrics["S"]
    privileges = _V3_PRIVILEGES[scope][metrics["PR"]]
    base = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 6.42 * base if scope == "U" else 7.52 * (base - 0.029) - 3.25 * (base - 0.02) ** 15
    if impact <= 0:
        return 0.0
    exploitability = 8.22 * weight["AV"] * weight["AC"] * privileges * weight["UI"]
    total = impact + exploitability if scope == "U" else 1.08 * (impact + exploitability)
    return _round_up(min(total, 10.0))


def _round_up(value: float) -> float:
    # Appendix A of v3.1: in whole numbers, so that no platform's floating point moves a score over a bound.
    scaled = round(value * 100_000)
    return scaled / 100_000 if scaled % 10_000 == 0 else (scaled // 10_000 + 1) / 10


def _v2(metrics: Mapping[str, str]) -> float:
    weight = {name: values[metrics[name]] for name, values in _V2.items()}
    impact = 10.41 * (1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"]))
    exploitability = 20 * weight["AV"] * weight["AC"] * weight["Au"]
    return round((0.6 * impact + 0.4 * exploitability - 1.5) * (1.176 if impact else 0.0), 1)
