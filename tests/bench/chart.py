"""The figures of a run as one SVG: a bar for each subject of each scenario, with the least and the most of its rounds."""
from xml.sax.saxutils import escape

from results import UNITS

COLOURS = {"floor": "#9aa0a6", "nginx": "#5f8dd3", "HAProxy": "#d39a4c", "gateway-pro": "#2e8b57"}
WIDTH, LABEL, BAR, ROW, GAP = 900, 190, 480, 20, 46


def panel(summary, y):
    """One scenario, from `y` on; the lines and where the next one begins."""
    rows = summary["rows"]
    # Bars and whiskers share the scale: a ratio's whisker lies where that round's ratio is.
    scale = BAR / max(max(r["most"], r["ratio"]) for r in rows.values()) if any(r["ratio"] for r in rows.values()) else 0
    out = [f'<text x="10" y="{y}" class="title">{escape(summary["title"])}</text>']
    for label, row in rows.items():
        y += ROW
        colour = COLOURS[next(k for k in COLOURS if label.startswith(k))]
        end, least, most = (LABEL + row[k] * scale for k in ("ratio", "least", "most"))
        middle = y - 4
        out += [f'<text x="{LABEL - 8}" y="{y}" class="label">{escape(label)}</text>',
                f'<rect x="{LABEL}" y="{y - 12}" width="{max(end - LABEL, 1):.1f}" height="14" fill="{colour}"/>',
                f'<path d="M{least:.1f} {middle}H{most:.1f}M{least:.1f} {middle - 4}v8M{most:.1f} {middle - 4}v8" '
                'stroke="#222" fill="none"/>',
                f'<text x="{LABEL + BAR + 12}" y="{y}">{row[summary["metric"]]:,.1f} {UNITS[summary["metric"]]}, '
                f'× {row["ratio"]:.2f}</text>']
    return out, y + GAP


def draw(run):
    """The whole run as text."""
    y, body = 56, []
    for summary in run["scenarios"].values():
        lines, y = panel(summary, y)
        body += lines
    machine = run["machine"]
    head = f'{machine["cpu"]}, {machine["cores"]} cores, Linux {machine["kernel"]}; shorter is better'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">',
        '<style>.title{font-weight:bold;font-size:13px}.label{text-anchor:end}</style>',
        f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>', f'<text x="10" y="24">{escape(head)}</text>', *body, "</svg>", ""])
