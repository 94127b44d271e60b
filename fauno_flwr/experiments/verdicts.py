"""Verdicts in words."""

from fauno_flwr.experiments.summary import FINISHED, RESPONSE, SIGN, Summary, deciding, difference
from fauno_flwr.results.statistics import BETTER, TIE, WORSE, Estimate

WORDS = {FINISHED: "the finished ratio", RESPONSE: "the response"}
IN_WORDS = {BETTER: "better, but worse in the other measure", TIE: "a tie", WORSE: "worse"}


def not_better_than(summary: Summary, rival: str) -> list[str]:
    """Describe the conditions in which the first method does not beat a rival, in sentences.

    That is, it is not better by the measure that decides, or it is worse by the other one.
    """
    lines = []
    for condition, (ours, theirs) in summary.pairs(rival).items():
        measure = deciding(summary, condition)
        found = {m: difference(ours, theirs, m) for m in SIGN}
        verdicts = {m: found[m].verdict for m in SIGN}
        if verdicts[measure] == BETTER and WORSE not in verdicts.values():
            continue
        verdict = IN_WORDS[verdicts[measure]]
        lines.append(
            f"{summary.titles[condition]}: {verdict} (decided by {WORDS[measure]}): "
            f"finished {in_words(FINISHED, found[FINISHED])}, "
            f"response {in_words(RESPONSE, found[RESPONSE])}"
        )
    return lines


def in_words(measure: str, found: Estimate) -> str:
    """Format a difference in points or seconds, with the sign of ours - theirs."""
    if measure == FINISHED:
        value, low, high = (100 * x for x in (found.value, found.low, found.high))
        return f"{value:+.2f} [{low:+.2f}, {high:+.2f}] points"
    return f"{-found.value:+.2f} [{-found.high:+.2f}, {-found.low:+.2f}] s"
