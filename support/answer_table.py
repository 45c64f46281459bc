"""What kept answers and episodes come to: shares with their errors, costs per item, the table
(§6.3).

The standard error of a share is √(p(1 − p)/n), its 95% interval Wilson's; that of single samples,
several per question, comes from drawing the questions anew.
"""

import math
from collections import defaultdict

from support.intervals import bootstrap_ratio, wilson


def share_cut_short(row: dict) -> float:
    """The share of a row's texts that had not ended when their room was used up."""
    texts = row.get("samples") or [row]
    return sum(text.get("ended") == "length" for text in texts) / len(texts)


def figures_of_rows(rows: list[dict]) -> dict:
    """What a table's line says: shares in percent, means per question."""
    n = len(rows)
    right = sum(row["right"] for row in rows)
    low, high = wilson(right, n)
    figures = dict(
        questions=n,
        right=100 * right / n,
        standard_error=100 * math.sqrt(right / n * (1 - right / n) / n),
        interval=[100 * low, 100 * high],
        no_answer=100 * sum(row["answer"] == "" for row in rows) / n,
        cut_short=100 * sum(map(share_cut_short, rows)) / n,
        too_long=sum(row.get("too_long", False) for row in rows),
        read=sum(row["read"] for row in rows) / n,
        written=sum(row["written"] for row in rows) / n,
        gflops=sum(row["flops"] for row in rows) / n / 1e9,
    )
    if any("second" in row for row in rows):
        figures["second"] = 100 * sum(row.get("second", False) for row in rows) / n
        differing = [row for row in rows if row.get("second", row["right"]) != row["right"]]
        figures["disagreements"] = [
            {key: row[key] for key in ("number", "source", "gold", "answer", "right", "second")}
            for row in differing
        ]
    votes = max(len(row.get("samples", [])) for row in rows)
    if votes > 1:  # a question that is too long for samples counts as wrong, as it does above
        above = [float(sum(s["right"] for s in row.get("samples", []))) for row in rows]
        below = [float(votes)] * n
        figures["one_sample"] = 100 * sum(above) / sum(below)
        interval = bootstrap_ratio(above, below)
        if figures["one_sample"] in (0, 100):  # no draw differs: how little n questions say
            interval = wilson(n if sum(above) else 0, n)
        figures["one_sample_interval"] = [100 * bound for bound in interval]
        figures["any_sample"] = 100 * sum(count > 0 for count in above) / n
    return figures


def by_group(rows: list[dict]) -> dict[str, dict]:
    """Questions, share of right ones and interval of each group, where there are several."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["group"]].append(row)
    if len(groups) < 2:
        return {}
    wanted = ("questions", "right", "interval")
    figures = {name: figures_of_rows(groups[name]) for name in sorted(groups)}
    return {name: {key: each[key] for key in wanted} for name, each in figures.items()}


def table_of(results: dict[str, dict]) -> str:
    """The results as a table, and what is to be said about them."""
    lines = [
        f"{'benchmark':16} {'how':12} {'n':>6} {'right':>7} {'± s.e.':>7} {'95%':>14} "
        f"{'no answer':>10} {'cut':>6} {'read':>6} {'written':>8} {'GFLOP':>8}"
    ]
    notes = []
    for task, result in results.items():
        f = result["figures"]
        interval = "{:.1f} to {:.1f}".format(*f["interval"])
        lines.append(
            f"{task:16} {result['how']:12} {f['questions']:6} {f['right']:6.1f}% "
            f"{f['standard_error']:7.1f} {interval:>14} {f['no_answer']:9.1f}% "
            f"{f['cut_short']:5.0f}% {f['read']:6.0f} {f['written']:8.0f} {f['gflops']:8.1f}"
        )
        if "one_sample" in f:
            low, high = f["one_sample_interval"]
            notes.append(
                f"{task}: one sample alone {f['one_sample']:.1f}% ({low:.1f} to {high:.1f}), "
                f"some sample is right in {f['any_sample']:.1f}%"
            )
        if "second" in f:
            differing = f["disagreements"]
            notes.append(
                f"{task}: by the second rule {f['second']:.1f}%; the rules differ in "
                f"{len(differing)}" + (", the first of them:" if differing else "")
            )
            for row in differing[:5]:
                verdict = "right" if row["right"] else "wrong"
                notes.append(
                    f"    {row['source']}: {row['answer']!r} for {row['gold']!r} is {verdict} by "
                    f"the first"
                )
        if f["too_long"]:
            notes.append(f"{task}: {f['too_long']} are longer than the context, and count as wrong")
    return "\n".join([*lines, "", *notes]).rstrip()
