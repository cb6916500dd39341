"""Sends a version to the gate: it enters Production, answers in shadow first, or stays out.

Killed anywhere and called again, it gives the same result.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from dosel.closed import BLOCK
from dosel.errors import ApprovalsMissing, DeclarationChanged, PromotionConflict
from dosel.model import tags
from dosel.registry.attested import gate_metrics
from dosel.registry.file_verification import check_declaration
from dosel.registry.gate import judge
from dosel.registry.ledger import Promotion
from dosel.registry.registry import Registry
from dosel.registry.report import Report
from dosel.registry.rollbacks import rolled_back
from dosel.registry.shadows import ShadowEnd
from dosel.registry.store import ModelVersion
from dosel.registry.unseen import UnseenRows
from dosel.registry.verdicts import Verdict
from dosel.rows import frames
from dosel.usecases import UseCase

if TYPE_CHECKING:
    import pandas as pd

GATE_ATTEMPTS = 3
"""Attempts at the gate when Production changes, or another version is judged, during the evaluation."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """The decision on a version that was sent to the gate."""

    version: int
    promoted: bool
    reason: str
    in_shadow: bool = False
    """It passed, and has to prove itself on live rows first."""


class Challenge:
    """The gate of one use case.

    Args:
        clean_rows: gives all clean rows, part by part, each time that it is called; the version is judged on those
            that are held out.
        is_harmed: whether live rows proved the version of an entry of the ledger to be worse than the gate found.
    """

    def __init__(
        self,
        use_case: UseCase,
        registry: Registry,
        clean_rows: "Callable[[], Iterable[pd.DataFrame]]",
        seed: int,
        is_harmed: Callable[[Promotion], bool] = lambda _: False,
    ) -> None:
        self._is_harmed = is_harmed
        self._use_case = use_case
        self._registry = registry
        self._clean_rows = clean_rows
        self._seed = seed

    def run(self, number: int, actor: str) -> Outcome:
        """Judge a version, and promote it or let it answer in shadow if it passes.

        Args:
            actor: name of the person or task that calls, for the ledger.

        Raises:
            PromotionConflict: Production kept changing during the evaluation; try again.
        """
        name = self._use_case.model_name
        version = self._registry.version(name, number)
        for _ in range(GATE_ATTEMPTS):
            # Finish an interrupted promotion first, so that the champion is the ledger's.
            now = self._registry.reconcile(name)
            if now.entry is not None and now.version is not None and now.version.version == number:
                return self._already_promoted(version, now.entry)
            report, looks = self._judge(version, now.version)
            try:
                # Before the promotion, since serving reads the backend from the verdict when it loads the version.
                self._registry.add_verdict(version, Verdict(report.passed, report.reason, report.document()), looks)
                self._registry.tag_run(version, report.backend_tags)
                if not report.passed:
                    return self._publish(version, report)
                # A champion that the API can no longer load answers nothing that could be compared.
                if now.entry is not None and report.champion is not None and self._use_case.gate.shadow is not None:
                    self._publish(version, report)
                    return self._to_shadow(version, report, now.entry, actor)
                evidence = self._registry.gate_evidence(version, report.document(), "gate")
                self._registry.promote(version, actor, report.reason, evidence, now.entry.sequence if now.entry else 0)
            except ApprovalsMissing as waiting:
                self._publish(version, report)
                return Outcome(number, False, f"passed the gate; {waiting}")
            except PromotionConflict:
                log.info("%s: another version was judged or promoted; version %d is judged again", name, number)
                continue
            return self._publish(version, report)
        raise PromotionConflict(
            f"{name}: other versions were judged or promoted {GATE_ATTEMPTS} times while version {number} was judged; "
            "try again"
        )

    def _to_shadow(self, version: ModelVersion, report: Report, champion: Promotion, actor: str) -> Outcome:
        """Let a version that passed the gate answer in shadow, unless live rows have decided on it before."""
        ledger, rules = self._registry.ledger, self._use_case.gate.shadow
        assert rules is not None
        number, known = version.version, ledger.shadows(version.name)
        if number in rolled_back(ledger.history(version.name)):
            return Outcome(number, False, "live rows proved it worse; only a person can put it into Production again")
        for shadow in known:
            if shadow.end is not None and (shadow.version, shadow.sequence) == (number, champion.sequence):
                return Outcome(number, False, f"its shadow has ended: {shadow.end.outcome}, {shadow.end.reason}")
        running = next((s for s in ledger.open_shadows(version.name) if s.role == "challenger"), None)
        if running is not None and running.version != number:
            if not self._is_harmed(champion):
                ledger.announce_waiting(running, number)
                return Outcome(
                    number, False, f"passed the gate, and waits while version {running.version} is in shadow"
                )
            # A champion that is worse should not stay for the days that the older challenger may need.
            reason = f"version {champion.to_version} is harmed, and version {number} passed the gate after it"
            self._registry.end_shadow(running, ShadowEnd("superseded", actor, reason))
        length = timedelta(days=rules.max_days)
        self._registry.start_shadow(
            version, "challenger", length, actor, report.reason, champion.sequence, report.document()
        )
        reason = f"passed the gate and is in shadow of version {champion.to_version}"
        return Outcome(number, False, reason, in_shadow=True)

    def _already_promoted(self, version: ModelVersion, entry: Promotion) -> Outcome:
        """Publish the verdict of a version in Production: the process may have been killed before it did."""
        if entry.evidence.gate is not None:
            return self._publish(version, Report.read(entry.evidence.gate))
        self._registry.note(version, {tags.GATE: "passed", tags.GATE_REASON: entry.reason}, {}, entry.reason)
        return Outcome(version.version, True, entry.reason)

    def _judge(self, challenger: ModelVersion, champion: ModelVersion | None) -> tuple[Report, int]:
        """The gate's report, and the number of looks on which it rests."""
        from dosel.registry.scoring import evaluate_version

        use_case = self._use_case
        if champion is not None and (manifest := self._registry.manifest(champion)) is not None:
            try:
                check_declaration(use_case, manifest)
            except DeclarationChanged as error:
                # The API no longer serves this version, so there is nothing to compare with.
                log.warning("there is no champion: %s", error)
                champion = None
        compared = [challenger] if champion is None else [challenger, champion]
        past = self._registry.ledger.looks(challenger.name)
        for block in (1,) if use_case.expose_training_rows else (BLOCK, 1):
            # With fewer held-out rows than a block, all of them are judged.
            rows = UnseenRows(use_case, self._clean_rows, compared, block)
            judged = rows.judged(challenger, champion, past)
            if len(judged.truth):
                break
        one, *other = (
            evaluate_version(self._registry, use_case, v, (frames.canonical(use_case, p) for p in rows.parts()))
            for v in compared
        )
        report = judge(use_case.gate, use_case.target, judged, one, other[0] if other else None, self._seed)
        return report, len(past)

    def _publish(self, version: ModelVersion, report: Report) -> Outcome:
        """Write the gate's report to MLflow. The tag comes last, since it marks the version as judged."""
        figures = gate_metrics(Verdict(report.passed, report.reason, report.document()))
        self._registry.store.write_report(version, report.document())
        self._registry.write_card(self._use_case, version)
        verdict = {tags.GATE_REASON: report.reason, tags.GATE: "passed" if report.passed else "refused"}
        self._registry.note(version, verdict, figures, report.table + self._use_case.caveat)
        for rule in report.rules:
            log.info("rule %s %s: %s", rule.name, "holds" if rule.holds else "fails", rule.words)
        against = f"version {report.champion}" if report.champion else "no champion"
        log.info("judged on %s held-out rows, against %s", f"{report.rows:,}", against)
        log.info("%s version %d: %s", version.name, version.version, report.reason)
        return Outcome(version.version, report.passed, report.reason)
