"""Numbers as text: sentences, and the roundings that tables, pages and terminals share."""

from __future__ import annotations

import math

from .results import Comparison, Metric, Pair
from .statistics import Interval

MINUS = "\u2212"
NOTHING = "\u2014"


def summary_lines(comparison: Comparison) -> list[str]:
    """The verdicts against random search, one sentence per method and metric, then the warnings.

    >>> for line in summary_lines(comparison):  # doctest: +SKIP
    ...     print(line)
    """
    lines = [
        sentence(pair, metric)
        for metric in comparison.metrics
        for pair in comparison.pairs_of(metric.name, baseline=True)
    ]
    if not lines:
        lines.append(f"only {comparison.baseline} has results: there is nothing to compare it with")
    return [*lines, *(f"warning: {w}" for w in comparison.warnings)]


def sentence(pair: Pair, metric: Metric) -> str:
    """A verdict in words, with the numbers that it rests on."""
    lower = pair.difference.estimate < 0
    rope = metric.rope * metric.scale
    opening = {
        "better": f"{pair.first} reaches a {'lower' if lower else 'higher'} {metric.noun} than {pair.second}",
        "worse": f"{pair.first} reaches a {'lower' if lower else 'higher'} {metric.noun} than {pair.second}",
        "equivalent": f"{pair.first} and {pair.second} have the same {metric.noun} within ±{rope:g}",
        "undecided": f"{pair.first} and {pair.second} cannot be told apart by their {metric.noun}",
    }[pair.verdict]
    p = p_text(pair.p_holm)
    unit = "percentage points" if metric.scale == 100.0 else metric.unit
    return (
        f"{opening}: {span(pair.difference, scale=metric.scale)} {unit}, A12 = {pair.a12.estimate:.2f},"
        f" p {p if p.startswith('<') else '= ' + p} (Holm), {pair.verdict}."
    )


def decimals(width: float) -> int:
    """Decimal places that show one significant digit of an interval's half-width; 3 if it has none."""
    if not math.isfinite(width) or width <= 0:
        return 3
    return min(max(-math.floor(math.log10(width)), 0), 6)


def signed(value: float, places: int, *, plus: bool = False) -> str:
    """A number with a true minus sign; what rounds to zero has none."""
    if math.isnan(value):
        return NOTHING
    text = f"{abs(value):.{places}f}"
    zero = float(text) == 0
    return (MINUS if value < 0 and not zero else "+" if plus and not zero else "") + text


def span(interval: Interval, places: int | None = None, *, scale: float = 1.0) -> str:
    """`-0.12 [-0.15, -0.09]`; the limits are left out where they are undefined."""
    half = interval.half_width * scale
    places = max(decimals(half), 2) if places is None else places
    estimate = signed(interval.estimate * scale, places, plus=True)
    if math.isnan(half):
        return f"{estimate} (no interval)"
    low, high = (signed(v * scale, places, plus=True) for v in (interval.low, interval.high))
    return f"{estimate} [{low}, {high}]"


def plus_minus(interval: Interval, places: int, *, scale: float = 1.0) -> str:
    """`0.12 ± 0.03`, the half-width of the interval; the estimate alone where it is undefined."""
    estimate = signed(interval.estimate * scale, places)
    if math.isnan(interval.half_width):
        return estimate
    return f"{estimate} ± {interval.half_width * scale:.{places}f}"


def p_text(p: float) -> str:
    """Three decimals, and never zero."""
    if math.isnan(p):
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def number(value: float, digits: int = 3) -> str:
    """Significant digits with k, M, G for thousands; a dash for what is unknown."""
    if math.isnan(value):
        return NOTHING
    if value == 0:
        return "0"
    steps = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
    for size, letter in steps:
        if abs(value) >= size * 0.9995:
            return f"{float(f'{value / size:.{digits}g}'):g} {letter}"
    return f"{float(f'{value:.{digits}g}'):g}"


def unit_name(clock: str) -> str:
    """How a unit of cost is written."""
    return "FLOPs" if clock == "flops" else clock


def amount(value: float, clock: str) -> str:
    """A cost with its unit: `100 GFLOPs`, `20 000 seconds`."""
    if clock == "flops":
        return f"{number(value)}FLOPs" if value >= 1000 else f"{number(value)} FLOPs"
    return f"{value:,.0f} {clock}".replace(",", "\u202f")


def percent(value: float, places: int = 0) -> str:
    """A share in percent, without the sign; a dash for what is unknown."""
    return NOTHING if math.isnan(value) else f"{100 * value:.{places}f}"
