#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""report.py RESULT [CHART]: print what bench.py measured as a table, and which goals were reached; add that to RESULT;
draw an SVG chart.

A figure is the median of the rounds, a ratio the median of the ratios of each round, of the case to the first one of its
job; in brackets the lowest and highest of them.
"""
import html
import json
import statistics
import sys

import goals

# By the beginning of the case, the longest first.
COLOURS = {"thinfs::transport=classic": "#7fb0dd", "thinfs::transport=io_uring": "#6a9a4a", "thinfs": "#2f6fb0",
           "floor": "#8a8f98", "qcow2": "#c98a2b"}
PLAIN = "#9a5aa0"  # numbers of mappings
ROW, LEFT, WIDTH, MOST = 11, 330, 560, 2.0


def values(samples, field="value"):
    return [s[field] for s in samples if s.get(field) is not None]


def ratios(job, case):
    base = next(iter(job["samples"].values()))
    return [s["value"] / b["value"] for s, b in zip(job["samples"][case], base) if b["value"]]


def number(x):
    return f"{x:.0f}" if x >= 100 else f"{x:.1f}" if x >= 10 else f"{x:.2f}"


def median_or_dash(samples, field, scale=1):
    v = values(samples, field)
    return number(statistics.median(v) * scale) if v else "-"


def case_row(job, case):
    samples, r = job["samples"][case], ratios(job, case)
    v = values(samples)
    return [
        case,
        f"{number(statistics.median(v))} [{number(min(v))} - {number(max(v))}]",
        f"{statistics.median(r):.2f} [{min(r):.2f} - {max(r):.2f}]" if r else "-",
        median_or_dash(samples, "cpu_us_per_request"),
        median_or_dash(samples, "cpu_s_per_gib"),
        median_or_dash(samples, "memory_kib", 1 / 1024),
        median_or_dash(samples, "p50_us"),
        median_or_dash(samples, "p99_us"),
        median_or_dash(samples, "p999_us"),
        median_or_dash(samples, "max_us"),
    ]


def print_rows(head, rows):
    """A table; a row of one cell is a heading."""
    widths = [max(len(r[i]) for r in rows + [head] if len(r) > 1) for i in range(len(head))]
    for row in [head] + rows:
        print(row[0] if len(row) == 1 else
              "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))).rstrip())


def print_table(place):
    head = ["", "", "ratio", "CPU us/req", "CPU s/GiB", "MiB", "p50 us", "p99", "p99.9", "longest"]
    rows = []
    for job in place["jobs"]:
        rows.append([f"{job['title']} ({job['unit']})"])
        rows += [["  " + cell if i == 0 else cell for i, cell in enumerate(case_row(job, case))] for case in job["samples"]]
    print(f"\non {place['place']}")
    print_rows(head, rows)


def print_goals(place):
    if not place["goals"]:
        return
    rows = [[f"  {g['what']}", g["limit"], f"{number(g['median'])} [{number(g['lowest'])} - {number(g['highest'])}]",
             g["verdict"]] for g in place["goals"]]
    points = [g["point"] for g in place["goals"]]
    for n in reversed(range(len(rows))):
        if n == 0 or points[n] != points[n - 1]:
            rows.insert(n, [points[n]])
    reached = sum(g["reached"] for g in place["goals"])
    print(f"\ngoals on {place['place']}: {reached} of the {len(place['goals'])} that were measured are reached")
    print_rows(["", "goal", "median [lowest - highest]", "reached"], rows)


def text(x, y, words, extra=""):
    # Readable on whatever is below it.
    return f'<text x="{x}" y="{y}" stroke="#fff" stroke-width="3" paint-order="stroke" {extra}>{html.escape(words)}</text>'


def colour(case):
    return next((c for name, c in COLOURS.items() if case.startswith(name)), PLAIN)


def bars(job, y):
    """A bar for each case, as long as its ratio, with a whisker from the lowest to the highest."""
    out = [text(LEFT - 8, y + ROW - 2, job["title"], 'text-anchor="end"')]
    for n, case in enumerate(job["samples"]):
        r = ratios(job, case)
        if not r:
            continue
        length, low, high = (min(x, MOST) / MOST * WIDTH for x in (statistics.median(r), min(r), max(r)))
        middle = y + n * ROW + ROW / 2
        if statistics.median(r) > MOST:
            out.append(f'<path d="M{LEFT + WIDTH} {y + n * ROW}l5 {(ROW - 2) / 2}l-5 {(ROW - 2) / 2}Z" fill="{colour(case)}"/>')
        label = f"{case} {statistics.median(r):.2f}, {number(statistics.median(values(job['samples'][case])))} {job['unit']}"
        out.append(f'<rect x="{LEFT}" y="{y + n * ROW}" width="{length:.1f}" height="{ROW - 2}" '
                   f'fill="{colour(case)}"/>')
        out.append(f'<path d="M{LEFT + low:.1f} {middle}H{LEFT + high:.1f}" stroke="#000"/>')
        out.append(text(f"{LEFT + max(length, high) + 6:.1f}", y + (n + 1) * ROW - 3, label))
    return out, len(job["samples"]) * ROW + 8


def draw_chart(results, path):
    y, out = 20, []
    for place in results["places"]:
        out.append(text(LEFT, y, f"on {place['place']}: ratio to the first of each job", 'font-weight="bold"'))
        y += 10
        top, lines = y, []
        for job in place["jobs"]:
            more, height = bars(job, y)
            lines += more
            y += height
        out.append(f'<path d="M{LEFT + WIDTH / MOST} {top}V{y}" stroke="#000" stroke-dasharray="3 3"/>')
        out += lines
        y += 30
    with open(path, "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 330}" height="{y}" '
                'font-family="sans-serif" font-size="9">\n<rect width="100%" height="100%" fill="#fff"/>\n')
        f.write("\n".join(out) + "\n</svg>\n")


def main(result, chart=None):
    with open(result, encoding="utf-8") as f:
        results = json.load(f)
    m = results["machine"]
    print(f"{m['processors']} processors ({m['processor']}), Linux {m['kernel']}, libfuse {m['libfuse']}, {m['date']}; "
          f"{m['rounds']} rounds of {m['seconds']:g} s, volumes of {m['size_mib']} MiB")
    print("median [lowest - highest]; ratio to the first of each job, within a round")
    for place in results["places"]:
        place["goals"] = goals.judge(place)
        print_table(place)
    for place in results["places"]:
        print_goals(place)
    with open(result, "w", encoding="utf-8") as f:
        json.dump(results, f, indent=1)
    if chart:
        draw_chart(results, chart)


if __name__ == "__main__":
    main(*sys.argv[1:])
