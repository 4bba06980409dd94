"""Everything that the statistics say about one study, computed once: what tables, figures and the page are made of.

In: `Study`. Out: `Findings`. Reads adapters, truncated adapters, events and votes from the study; writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.statistics import answer, decision
from analysis.statistics.answer import Answer, answers
from analysis.statistics.decision import Decision, decisions
from analysis.statistics.differences import Difference, differences
from analysis.statistics.noise import Halves, Reseed, halves, reseeds
from analysis.statistics.plateau import Plateau, plateaus
from analysis.statistics.rank_tests import RankTests, rank_tests
from analysis.statistics.reliability import SizeCurve, set_sizes
from analysis.statistics.spectra import Spectrum, study_spectra
from analysis.statistics.steadiness import Matched, motion_matched
from analysis.statistics.truncation import Truncated, truncations
from analysis.study.costs import Costs, costs
from analysis.study.load import Study
from analysis.study.rows import Estimates, RowKey, estimate
from analysis.votes.results import Result, find_votes


@dataclass(frozen=True, eq=False)
class Findings:
    """Each field is empty where the study has nothing to compute it from."""

    estimates: Estimates
    answers: tuple[Answer, ...]
    decisions: tuple[Decision, ...]  # over the answers of each series
    differences: tuple[Difference, ...]  # of each row to the base
    tests: tuple[RankTests, ...]  # over the ranks
    matched: tuple[Matched, ...]  # of each row to the base where motion is alike
    plateaus: Mapping[RowKey, Plateau]  # of training
    spectra: Mapping[RowKey, tuple[Spectrum, ...]]  # of the adapters
    truncations: tuple[Truncated, ...]  # adapters truncated to a lower rank
    sizes: tuple[SizeCurve, ...]  # distances on fewer clips
    halves: tuple[Halves, ...]  # noise of the set scores
    reseeds: tuple[Reseed, ...]  # noise of sampling
    costs: Costs  # of the finished trials
    votes: Result | None  # of people

    @property
    def study(self) -> Study:
        return self.estimates.study


def find(study: Study) -> Findings:
    """UserError where no trial has finished, or where the trials have no clip in common."""
    estimates = estimate(study)
    found = answers(estimates)
    return Findings(
        estimates=estimates,
        answers=found,
        decisions=decisions(estimates, found),
        differences=differences(estimates),
        tests=rank_tests(estimates),
        matched=motion_matched(estimates),
        plateaus=plateaus(estimates),
        spectra=study_spectra(estimates),
        truncations=truncations(estimates),
        sizes=set_sizes(estimates),
        halves=halves(estimates),
        reseeds=reseeds(estimates),
        costs=costs(estimates),
        votes=find_votes(estimates),
    )


def answer_lines(found: Findings) -> list[str]:
    """The decision first, then a sentence per primary score; "what: text" each."""
    return [decision.sentence(each) for each in found.decisions] + answer.lines(found.estimates, found.answers)
