"""The verdict: what a comparison on test means for the choice of a model. Without torch."""

from __future__ import annotations

import math
from typing import Literal

from scipy import stats

from hfprobe.statistics.imbalance import METRIC_NAMES
from hfprobe.statistics.intervals import COVERAGE
from hfprobe.tasks.compare.result import Comparison, Pair
from hfprobe.tasks.decide.result import Judgement
from hfprobe.tasks.evaluate.result import EvalResult
from hfprobe.tasks.profile.result import judge_inference

# Of a metric, in [0, 1]: a smaller difference does not matter.
MARGIN = 0.005


def judge(comparison: Comparison, *, margin: float = MARGIN) -> Judgement:
    """The best model of a comparison against its strongest rival, by the leading metric.

    The difference is compared with 0 and with the margin: it is `better` if the test rejects and the 95 % interval
    excludes 0, `equal` if the interval lies between minus and plus the margin, which comes first, because a significant
    difference that is smaller does not matter either, and otherwise `unclear`.

    Args:
        comparison: of two or more models.
        margin: in [0, 1].
    """
    metric = comparison.leading[0]
    best, rival = sorted(comparison.models, key=lambda name: -comparison.models[name][metric])[:2]
    pair = next(pair for pair in comparison.pairs if {pair.first, pair.second} == {best, rival})
    found = pair.differences[metric]
    sign = 1 if pair.second == best else -1
    low, high = sorted(sign * bound for bound in found.interval)
    difference, p = sign * found.value, found.adjusted_p
    # The standard error is known with several runs, and follows from the interval with one run each.
    quantile, of_runs = float(stats.norm.ppf((1 + COVERAGE) / 2)), 0.0
    if found.error is not None and found.shares is not None:
        quantile, of_runs = (high - low) / 2 / found.error, found.shares.seeds * found.error**2
    of_images = ((high - low) / 2 / quantile) ** 2 - of_runs
    kind: Literal["better", "equal", "unclear"] = "unclear"
    if -margin <= low and high <= margin:
        kind = "equal"
        best, rival, swapped = _cheaper_first(comparison, best, rival)
        if swapped:
            difference, low, high = -difference, -high, -low
    elif low > 0 and p < comparison.tests.significance:
        kind = "better"
    paired = metric == "accuracy" and found.error is None
    per_image = per_image_variance(pair, comparison.n) if paired else comparison.n * of_images
    how = {"difference": difference, "margin": margin, "per_image": per_image, "of_runs": of_runs, "quantile": quantile}
    return Judgement(
        kind=kind,
        best=best,
        rival=rival,
        metric=metric,
        difference=difference,
        interval=(low, high),
        p=p,
        margin=margin,
        n=comparison.n,
        seeds=max(comparison.models[name].runs for name in (best, rival)),
        images_needed=count_needed(comparison.n, **how) if kind == "unclear" else None,
    )


def _cheaper_first(comparison: Comparison, best: str, rival: str) -> tuple[str, str, bool]:
    """The two models, the one with the higher throughput first, and whether they were swapped."""
    one, other = (comparison.models[name].cost for name in (best, rival))
    swapped = one is not None and other is not None and one.throughput < other.throughput
    return (rival, best, True) if swapped else (best, rival, False)


def per_image_variance(pair: Pair, n: int) -> float:
    """Variance of the difference of two models on one image, which is -1, 0 or 1.

    It is s - d^2, where s is the share of the images that only one model classifies correctly, and d the difference in
    accuracy.
    """
    only = pair.only_first_right, pair.only_second_right
    return sum(only) / n - ((only[0] - only[1]) / n) ** 2


def count_needed(
    n: int, *, difference: float, margin: float, per_image: float, of_runs: float = 0.0, quantile: float = 1.96
) -> int | None:
    """How many test images would turn `unclear` into an answer, if the difference stays as it was observed.

    An answer needs an interval whose half width is at most |d|, which excludes 0, or at most margin - |d|, which lies
    inside the margin: at most w = max(|d|, margin - |d|). With N images, the half width is q sqrt(v / N + r), so

        N = v / ((w / q)^2 - r),

    where q is the quantile of the interval, v the variance of the difference on one image, and r its variance over
    training runs, which more images do not reduce. For accuracy, v = (b + c) / n - ((b - c) / n)^2, with b and c the
    images that only one of the two models classifies correctly; for another metric, v is n times the variance that its
    interval shows. If the models never disagree, v is 0, and the score interval has the half width q^2 / (N + q^2), so
    N = q^2 (1 / w - 1).

    Args:
        n: number of test images.
        per_image: v.
        of_runs: r.
        quantile: q.

    Returns:
        The number, rounded up to two digits and larger than n; None if no number would do.
    """
    wanted = max(abs(difference), margin - abs(difference))
    left = (wanted / quantile) ** 2 - of_runs
    if wanted <= 0 or left <= 0:
        return None
    needed = per_image / left if per_image else quantile**2 * (1 / wanted - 1)
    return max(_round_up(needed), _round_up(n + 1))


def _round_up(number: float) -> int:
    """To two digits."""
    step = 10 ** max(0, math.floor(math.log10(max(1.0, number))) - 1)
    return math.ceil(number / step) * step


def say(judgement: Judgement, comparison: Comparison | None, *, alone: EvalResult | None = None) -> list[str]:
    """The answer in sentences: the verdict, the inference cost if it was measured, and what a wrong choice would cost.

    Args:
        comparison: None if there is one model only.
        alone: the evaluation of the only model.
    """
    if comparison is None:
        assert alone is not None
        return [f"There is one model only, so nothing was compared: {judgement.best}.", *alone.summary]
    assert judgement.rival is not None
    costs = {name: comparison.models[name].cost for name in (judgement.best, judgement.rival)}
    known = {name: cost for name, cost in costs.items() if cost is not None}
    return [_say_verdict(judgement, comparison), *judge_inference(known), _say_wrong_choice(judgement)]


def _say_verdict(judgement: Judgement, comparison: Comparison) -> str:
    best, rival, metric = judgement.best, judgement.rival, METRIC_NAMES[judgement.metric]
    assert judgement.interval is not None
    assert judgement.difference is not None
    low, high = (100 * bound for bound in judgement.interval)
    points, margin = 100 * judgement.difference, f"{100 * judgement.margin:g} points"
    where = f"on these {judgement.n:,} {comparison.split} images"
    if judgement.seeds > 1:
        where += f", on average over {judgement.seeds} seeds"
    chance = f"95 % interval {low:+.2f} to {high:+.2f}"
    if judgement.kind == "better":
        certain = "" if low >= 100 * judgement.margin else f", which may be less than the margin of {margin}"
        return (
            f"Take {best}: its {metric} is {points:.2f} points higher than that of {rival} {where} ({chance}, "
            f"p = {judgement.p:.2g}){certain}."
        )
    if judgement.kind == "equal":
        reason = " because it is faster" if comparison.models[best].cost else ""
        return (
            f"No difference that matters: the {metric} of {best} and {rival} differs by {abs(points):.2f} points "
            f"{where} ({chance}), within the margin of {margin}. Take {best}{reason}."
        )
    more = "no number of test images would tell, because the margin is 0"
    if judgement.seeds > 1 and judgement.images_needed is None:
        more = "more test images alone would not tell, because the training runs differ too much: pass more --seeds"
    if judgement.images_needed is not None:
        more = f"about {judgement.images_needed:,} test images would"
    ahead = f"{best} is {points:.2f} points ahead of {rival} in {metric}" if points else f"{best} and {rival} are level"
    return (
        f"Not enough images to tell: {ahead} {where} ({chance}), which excludes neither that they are equal nor a "
        f"difference of more than {margin}; {more}."
    )


def _say_wrong_choice(judgement: Judgement) -> str:
    assert judgement.interval is not None
    low, high = judgement.interval
    best, rival = judgement.best, judgement.rival

    def lost(*shares: float) -> str:
        if judgement.metric == "accuracy":
            counts = " to ".join(dict.fromkeys(f"{1000 * share:.0f}" for share in shares))
            return f"{counts} more wrong answers per 1,000 images"
        values = " to ".join(dict.fromkeys(f"{100 * share:.2f}" for share in shares))
        return f"{values} points of {METRIC_NAMES[judgement.metric]}"

    if judgement.kind == "better":
        return f"To take {rival} instead would cost {lost(max(0.0, low), high)}."
    if judgement.kind == "equal":
        return f"A wrong choice between the two would cost at most {lost(max(abs(low), abs(high)))}."
    return (
        f"To take {best} although {rival} is better would cost at most {lost(max(0.0, -low))}; to take {rival} "
        f"although {best} is better, at most {lost(max(0.0, high))} (95 % interval)."
    )


def judge_alone(name: str, result: EvalResult, *, margin: float) -> Judgement:
    """The judgement on a model without a rival."""
    return Judgement(
        kind="alone",
        best=name,
        rival=None,
        metric=result.leading[0],
        difference=None,
        interval=None,
        p=None,
        margin=margin,
        n=len(result.labels),
        seeds=1,
        images_needed=None,
    )
