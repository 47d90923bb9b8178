"""The main figures of an analysis under flat, stable keys, for a run's result."""

from __future__ import annotations

from typing import Any

from kdlab.analysis.report import Analysis

ON_ITS_OWN = ("accuracy", "nll", "brier", "ece", "optimal_temperature")
FIDELITY = ("agreement", "kl", "kl_softened", "temperature", "same_wrong_rate", "spearman", "pearson")
MISMATCHES = ("one_right", "mismatches", "mended", "mended_rate", "created")


def headline(analysis: Analysis) -> dict[str, Any]:
    """Return the main figures of one split as JSON values; the keys are always the same, what is not known is None."""
    following, comparison, cka = analysis.following, analysis.comparison, analysis.cka
    figures: dict[str, Any] = {"n": analysis.n}
    for role, network in (("student", analysis.student), ("teacher", analysis.teacher)):
        figures |= {f"{role}_{name}": network and getattr(network.calibration, name) for name in ON_ITS_OWN}
    figures |= {name: following and getattr(following.fidelity, name) for name in FIDELITY}
    summary = following and following.summary(analysis.name)
    figures |= {"kl_standardized": summary and summary.kl_standardized, "ddof": summary and summary.ddof}
    figures["cka_last_layers"] = cka and cka.values[-1][-1]
    noise = analysis.student.denoising
    figures |= {f"noise_{name}": noise and getattr(noise, name) for name in ("corrected_rate", "memorised_rate")}
    figures["against"] = comparison and comparison.students[1]
    mismatches = comparison and comparison.mismatches
    return figures | {name: mismatches and getattr(mismatches, name) for name in MISMATCHES}
