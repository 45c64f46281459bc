"""What measurements say about chance: 95% intervals over tasks.

An interval is (low, high). Wilson's is for the share of tasks that succeeded, each counted once.
The bootstrap is for everything else (ratios, several samples of a task, bits of a document): it
draws the tasks anew, with replacement, so that what belongs to one task stays together; where a
stage was trained several times, the training seeds, too. Of few seeds it is too sure: it can only
draw again what it has seen. Student's interval over seeds knows what two or three are worth.
Where only a few tasks differ, a randomisation test of them says whether two runs do at all.
"""

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959964  # of the normal distribution, two-sided
DRAWS = 10_000
# 0.975 quantiles of Student's t by degrees of freedom (any textbook's table)
STUDENT_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a share of n independent trials (Wilson 1927); (0, 1) of none. `z` is the
    normal quantile of another level than 95%.
    """
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = share + z**2 / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def bootstrap_ratio(
    above: list[float], below: list[float], draws: int = DRAWS
) -> tuple[float, float]:
    """The interval of sum(above) ÷ sum(below), one entry of both per task.

    With ones below it is that of a mean. Draws whose denominator is 0 are left out.
    """
    pairs = np.array([above, below], np.float64)  # (2, tasks)
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(draws):
        chosen = generator.integers(0, pairs.shape[1], pairs.shape[1])
        numerator, denominator = pairs[:, chosen].sum(1)
        if denominator > 0:
            ratios.append(numerator / denominator)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def student(values: Sequence[float]) -> tuple[float, float]:
    """Student's interval of the mean of independent values, one per training seed; from two on.

    Beyond nine values it takes the quantile of nine and is a little too wide.
    """
    n = len(values)
    half = STUDENT_T[min(n - 1, 8)] * float(np.std(values, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(values))
    return mean - half, mean + half


def paired_difference(
    before: list[list[tuple[float, float]]],
    after: list[list[tuple[float, float]]],
    draws: int = DRAWS,
) -> tuple[float, float]:
    """The interval of ratio(after) − ratio(before), where the ratio of a list of (above, below) is
    sum(above) ÷ sum(below). Entry [s][i] of both is the same training seed's and the same task's.

    A bootstrap draws seeds and tasks anew, each for both together; of one seed only the tasks. Of
    several seeds the wider of it and Student's interval over their differences counts.
    """
    pairs = np.array([before, after], np.float64)  # (2, seeds, tasks, above and below)
    _, seeds, tasks, _ = pairs.shape
    generator = np.random.default_rng(0)
    differences = []
    for _ in range(draws):
        chosen = pairs[:, :, generator.integers(0, tasks, tasks)].sum(2)
        if seeds > 1:
            chosen = chosen[:, generator.integers(0, seeds, seeds)]
        (above_0, below_0), (above_1, below_1) = chosen.sum(1)
        if below_0 > 0 and below_1 > 0:
            differences.append(above_1 / below_1 - above_0 / below_0)
    low, high = np.percentile(differences, [2.5, 97.5])
    if seeds > 1:
        above, below = np.moveaxis(pairs.sum(2), -1, 0)  # each (2, seeds)
        counted = (below > 0).all(0)
        first, second = (above / np.maximum(below, 1))[:, counted]
        if counted.sum() > 1:
            ends = student(second - first)
            low, high = min(low, ends[0]), max(high, ends[1])
    return float(low), float(high)


def paired_p_value(
    before: list[tuple[float, float]], after: list[tuple[float, float]], draws: int = 10_000
) -> float:
    """How often chance alone makes ratios differ by as much, two-sided (Fisher's randomisation).

    Were there no difference, each task's two pairs (above, below) might as well be exchanged. Of
    shares of tasks it is McNemar's exact test, but for the draws. Ratios as in paired_difference.
    """
    pairs = np.array([before, after], np.float64)  # (2, tasks, above and below)
    moved = pairs[1] - pairs[0]
    moved = moved[moved.any(1)]  # a task that is the same in both changes nothing
    exchanged = np.random.default_rng(0).integers(0, 2, (draws, len(moved)))
    exchanged[0] = 0  # as it was
    sums = pairs.sum(1)[:, None] + np.stack([exchanged @ moved, -exchanged @ moved])
    with np.errstate(invalid="ignore", divide="ignore"):
        differences = np.abs(np.diff(sums[..., 0] / sums[..., 1], axis=0)[0])
    return float(np.mean(~(differences < differences[0] - 1e-12)))
