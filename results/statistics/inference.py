"""The tests behind a verdict: by how much two things differ, and how sure that is.

Everything is in the log domain: a difference there is a ratio. The unit is the launch, or the pair
of launches, never the sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from results.statistics.intervals import Estimate, t_quantile, t_two_sided
from results.statistics.scatter import LEAST_VARIANCE, MIN_CASES, MOST_DF, logs

TRIM = 0.1
"""Of a series of pairs, the share that is left out of the centre at either end: a neighbour's
burst hits one pair, and would hide a difference that all the others show."""


POWER = 0.8
"""Of tries, the share in which a change is found that counts as one that can be seen."""


class Difference(NamedTuple):
    """A difference of logarithms, its standard error and degrees of freedom."""

    centre: float
    error: float
    df: int

    @property
    def p(self) -> float:
        """The two-sided probability of so large a difference where there is none."""
        if self.error == 0:
            return 0.0 if self.centre else 1.0
        return t_two_sided(self.centre / self.error, self.df)

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval, as a logarithm."""
        return t_quantile(self.df) * self.error

    @property
    def ratio(self) -> Estimate:
        """The ratio with its 95 % interval."""
        half = min(300.0, self.half_width)
        low, high = math.exp(self.centre - half), math.exp(self.centre + half)
        return Estimate(math.exp(self.centre), low, high)

    def smallest_seen(self, false_alarms: float) -> float:
        """Return the smallest true ratio above 1 that this error lets a test find.

        Found means: in `POWER` of tries.

        Args:
            false_alarms: the two-sided level of the test, its share of a table's.
        """
        needed = t_quantile(self.df, 1 - false_alarms) + t_quantile(self.df, 2 * POWER - 1)
        return math.exp(min(300.0, needed * self.error))


NORMAL_QUARTILE = 0.6745
"""Half of a normal distribution lies within so many standard deviations."""


class Beyond(NamedTuple):
    """What two runs of the same differ by, beyond what their launches scatter.

    Attributes:
        variance: of a case's logarithm.
        df: its degrees of freedom.
    """

    variance: float = 0.0
    df: int = MOST_DF


def between_runs(own: Difference, beyond: Beyond, shift: float) -> Difference:
    """Return what changed between two runs, with what lies beyond its launches in its error.

    Args:
        own: with the launches' error alone.
        beyond: what two runs of the same differ by besides.
        shift: what the machine itself may have changed, as a logarithm; it is added to the
            standard error.
    """
    variance, df = own.error**2, own.df
    if beyond.variance > 0:
        variance, df = variance + beyond.variance, min(df, beyond.df)
    return Difference(own.centre, math.hypot(math.sqrt(variance), shift), df)


def beyond_launches(differences: Sequence[Difference]) -> Beyond:
    """Return what two runs differ by beyond their launches: another hour, another placement.

    Most cases did not change, so the spread of all about their median tells.
    """
    if len(differences) < MIN_CASES:
        return Beyond()
    centre = float(np.median([d.centre for d in differences]))
    spread = float(np.median([abs(d.centre - centre) for d in differences])) / NORMAL_QUARTILE
    expected = float(np.median([d.error for d in differences]))
    return Beyond(max(0.0, spread**2 - expected**2), len(differences) - 1)


def together(differences: Sequence[Difference]) -> Difference:
    """Return what several cases have in common: their mean, exact ones weighing more.

    The error is that of the cases' launches; where the cases differ by more than that, the one
    that their spread gives (Hartung and Knapp 2001, never below that of the launches).

    Args:
        differences: of cases, two at least.

    Raises:
        ValueError: if there are fewer than two.
    """
    count = len(differences)
    if count < 2:
        raise ValueError(f"differences: expected two or more, got {count}")
    centres = np.array([d.centre for d in differences])
    variances = np.array([d.error for d in differences]) ** 2
    if (typical := float(np.median(variances))) == 0:
        error = float(centres.std(ddof=1)) / math.sqrt(count)
        return Difference(float(centres.mean()), error, count - 1)
    weights = 1 / np.maximum(variances, LEAST_VARIANCE * typical)
    whole = float(weights.sum())
    centre = float((weights * centres).sum()) / whole
    spread = float((weights * (centres - centre) ** 2).sum()) / (count - 1)
    df = _joint_df([(float(w), d.df) for w, d in zip(weights, differences, strict=True)])
    return Difference(centre, math.sqrt(max(1.0, spread) / whole), df)


def apart_from(
    own: Difference, others: Sequence[Difference], least: float
) -> tuple[Difference, Difference]:
    """Compare what changed in one with what changed in most others.

    That is the mean of the others without a fifth at either end. What two runs of the same differ
    by in one and not in the next is added to the error: what the others' winsorised spread is
    beyond their errors (Yuen 1974), and not less than `least`.

    Args:
        own: of the one.
        others: of the others, two at least.
        least: a logarithm.

    Returns:
        The difference of `own` from the others, and the others' own.
    """
    count = len(others)
    centres = np.sort([d.centre for d in others])
    cut = math.floor(OTHERS_TRIM * count)
    kept = count - 2 * cut
    middle = float(centres[cut : count - cut].mean())
    winsorised = np.clip(centres, centres[cut], centres[count - cut - 1])
    spread = float(winsorised.var(ddof=1)) * (count - 1) / (kept - 1)
    errors = float(np.median([d.error**2 for d in others]))
    floor = max(least, UNEVEN * abs(middle)) ** 2
    between = max(floor, spread - errors)
    of_between = MOST_DF if between == floor else kept - 1
    share = TRIMMED_COST / count
    shared = [
        (share * errors, min(d.df for d in others)), (share * between, of_between),
    ]  # fmt: skip
    alone = [(own.error**2, own.df), (between, of_between)]
    return summed(own.centre - middle, [*alone, *shared]), summed(middle, shared)


OTHERS_TRIM = 0.2
"""Of several backends, the share that is left out at either end where most are sought."""

TRIMMED_COST = 1.2
"""How much larger the variance of so trimmed a mean is than the mean's, at most."""

UNEVEN = 0.25
"""Of what the machine changed by: by how much it may change one backend more than the next."""


def beyond_chance(differences: Sequence[Difference]) -> float:
    """Return by which logarithm cases surely differ beyond their launches; 0 where none is sure.

    As `beyond_launches`, but no spread that its own uncertainty explains.
    """
    count = len(differences)
    if count < MIN_CASES:
        return 0.0
    centres = np.array([d.centre for d in differences])
    spread = float(np.median(abs(centres - np.median(centres)))) / NORMAL_QUARTILE
    expected = float(np.median([d.error for d in differences]))
    # Of a median absolute deviation the standard error is 1.17 / sqrt(2 n); twice that, squared.
    sure = 1 + 4 * 1.17 / math.sqrt(2 * count)
    return math.sqrt(max(0.0, spread**2 - sure * expected**2))


def summed(centre: float, parts: Sequence[tuple[float, int]]) -> Difference:
    """Return a difference whose variance is a sum of parts, each with its degrees of freedom."""
    return Difference(centre, math.sqrt(sum(v for v, _ in parts)), _joint_df(parts))


ROUNDING = 1e-9
"""What arithmetic may take off whole degrees of freedom."""


def _joint_df(parts: Sequence[tuple[float, int]]) -> int:
    """Return the degrees of freedom of a sum of variances (Satterthwaite 1946)."""
    whole = sum(v for v, _ in parts)
    of_parts = sum(v**2 / df for v, df in parts)
    if of_parts == 0:
        return MOST_DF
    return max(1, min(MOST_DF, math.floor(whole**2 / of_parts + ROUNDING)))


def paired(base: ArrayLike, new: ArrayLike) -> Difference:
    """Compare pairs of launches taken side by side: log of new / base, by its trimmed mean.

    The trimmed mean and its error from the winsorised variance (Tukey and McLaughlin 1963, Yuen
    1974): `TRIM` at either end.

    Args:
        base: one positive number a pair, two at least.
        new: likewise.

    Raises:
        ValueError: if the sides differ in length, or hold a number that is not positive.
    """
    first, second = logs("base", base), logs("new", new)
    if len(first) != len(second):
        raise ValueError(f"new: expected {len(first)} launches, one a pair, got {len(second)}")
    ordered = np.sort(second - first)
    count = len(ordered)
    cut = math.floor(TRIM * count)
    kept = count - 2 * cut
    winsorised = np.clip(ordered, ordered[cut], ordered[count - cut - 1])
    spread = float(winsorised.std(ddof=1)) * math.sqrt((count - 1) / (kept - 1))
    return Difference(float(ordered[cut : count - cut].mean()), spread / math.sqrt(kept), kept - 1)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return the p-values adjusted for their number (Benjamini and Hochberg 1995).

    Those that are at most q are the discoveries among which a share of q is false, on average.
    NaN (not tested) stays NaN and does not count.
    """
    from scipy.stats import false_discovery_control  # takes 0.7 s: no cost of every import

    known = np.asarray(p_values, dtype=np.float64)
    is_tested = ~np.isnan(known)
    if is_tested.any():
        known[is_tested] = false_discovery_control(known[is_tested])
    return [float(q) for q in known]
