"""The page of `visavis validate`: one self-contained HTML file with the class histogram and sheets to review."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np

from visavis.data.contact_sheets import as_jpeg, contact_sheet
from visavis.data.sources.base import Source
from visavis.data.validate.label_errors import LabelError
from visavis.data.validate.validation import Findings
from visavis.errors import DataError
from visavis.runtimes import import_runtime
from visavis.types import ByteArray

_MOST = 120  # pairs shown on a sheet
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}td,th{padding:.2em .9em;border-bottom:1px solid #ddd;text-align:left}
img{max-width:100%}.bad{color:#a00}.good{color:#070}h2{margin-top:2em}"""


def class_histogram(source: Source) -> bytes:
    """A PNG: how many identities have how many pictures, both axes logarithmic."""
    sizes = np.bincount(source.labels, minlength=len(source.identities))
    figure = import_runtime("matplotlib.figure").Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    top = max(2, int(sizes.max()))
    edges = np.unique(np.round(np.geomspace(1, top + 1, 40)).astype(int))
    axes.hist(sizes, bins=[float(edge) - 0.5 for edge in edges] if len(edges) > 1 else 10, color="#3465a4")
    axes.set(xscale="log", yscale="log", xlabel="pictures of an identity", ylabel="identities", xlim=(0.45, 1.3 * top))
    for axis, most in ((axes.xaxis, top), (axes.yaxis, len(sizes))):
        ticks = [step * 10**power for power in range(9) for step in (1, 2, 5) if step * 10**power <= most]
        axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])
        axis.set_ticks([], minor=True)
    axes.set_ylim(bottom=0.7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def to_html(findings: Findings) -> str:
    """The findings as one page that loads nothing from elsewhere."""
    facts = findings.to_json()
    source, other = findings.source, findings.against
    rows = [
        ("pictures", f"{facts['pictures']:,}"),
        ("identities", f"{facts['identities']:,}"),
        (
            "pictures per identity",
            "min {min}, median {median:g}, mean {mean:g}, max {max:,}".format(**facts["per_identity"]),
        ),
        ("sizes", ", ".join(f"{size} ({count:,})" for size, count in list(facts["sizes"].items())[:8])),
    ]
    body = [f"<h1>{escape(str(source.path))}</h1>"]
    if facts["problems"]:
        body.append("<ul class=bad>" + "".join(f"<li>{escape(line)}</li>" for line in facts["problems"]) + "</ul>")
    else:
        body.append("<p class=good>Nothing wrong was found.</p>")
    body.append("<ul>" + "".join(f"<li>{escape(line)}</li>" for line in facts["notes"]) + "</ul>")
    body.append("<table>" + "".join(f"<tr><th>{k}</th><td>{escape(v)}</td></tr>" for k, v in rows) + "</table>")
    body.append(_image(class_histogram(source), "png"))
    body += _list("Unreadable", [f"{u['picture']}: {u['reason']}" for u in facts["unreadable"]])
    body += _list("Not pictures of the set", [f"{name}: {reason}" for name, reason in source.skipped])
    body += _pairs("Byte-identical under different identities",
                   [(source, g[0], source, i) for g in findings.identical_across for i in g[1:]])  # fmt: skip
    across = [(source, m.first, source, m.second) for m in findings.similar_across]
    body += _pairs("Near-identical under different identities", across)
    if other is not None:
        body += _list(f"Identities also in {other.path}", list(findings.overlap.names))
        body += _pairs(
            "Byte-identical to the other set", [(source, i, other, j) for i, j in findings.overlap.identical]
        )
        elsewhere = [(source, m.first, other, m.second) for m in findings.overlap.similar]
        body += _pairs("Near-identical to the other set", elsewhere)
        people = [(source, _first(source, p.first), other, _first(other, p.second)) for p in findings.overlap.people]
        body += _pairs("The same person in the other set, by embedding", people)
    if findings.labels is not None:
        body += _label_errors(source, findings.labels.errors)
        same = [(source, _first(source, p.first), source, _first(source, p.second)) for p in findings.labels.same]
        body += _pairs("Identities that may be one person, by embedding", same)
    inside = [(source, m.first, source, m.second) for m in findings.similar if m not in findings.similar_across]
    body += _pairs("Near-identical inside an identity", inside)
    title = f"validate {escape(source.path.name)}"
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        + "\n".join(body)
        + "</html>\n"
    )


def _first(source: Source, label: int) -> int:
    return int(np.flatnonzero(source.labels == label)[0])


def _image(data: bytes, kind: str) -> str:
    return f'<p><img alt="" src="data:image/{kind};base64,{base64.b64encode(data).decode()}"></p>'


def _list(title: str, lines: list[str]) -> list[str]:
    if not lines:
        return []
    more = f"<li>… and {len(lines) - 500:,} more</li>" if len(lines) > 500 else ""
    return [
        f"<h2>{escape(title)}: {len(lines):,}</h2>",
        "<ul>",
        *(f"<li>{escape(x)}</li>" for x in lines[:500]),
        more,
        "</ul>",
    ]


def _load(source: Source, index: int) -> ByteArray | None:
    try:
        return source.image(index)
    except DataError:
        return None


def _pairs(title: str, pairs: list[tuple[Source, int, Source, int]]) -> list[str]:
    if not pairs:
        return []
    images, captions = [], []
    for a, i, b, j in pairs[:_MOST]:
        images += [_load(a, i), _load(b, j)]
        captions += [a.names[i], b.names[j]]
    note = f" (the first {_MOST} are shown)" if len(pairs) > _MOST else ""
    sheet = _image(as_jpeg(contact_sheet(images, captions, group=2)), "jpeg")
    return [f"<h2>{escape(title)}: {len(pairs):,}{note}</h2>", sheet]


def _label_errors(source: Source, errors: tuple[LabelError, ...]) -> list[str]:
    """Three pictures a suspect: itself, another of its own identity, one of the identity it looks like."""
    if not errors:
        return []
    images, captions = [], []
    for error in errors[:_MOST]:
        own = [int(i) for i in np.flatnonzero(source.labels == error.label) if i != error.index]
        images += [_load(source, error.index), _load(source, own[0]), _load(source, _first(source, error.other))]
        captions += [
            source.names[error.index],
            f"own {error.own_similarity:.2f} {source.identities[error.label]}",
            f"looks {error.other_similarity:.2f} {source.identities[error.other]}",
        ]
    sheet = _image(as_jpeg(contact_sheet(images, captions, columns=6, group=3)), "jpeg")
    return [
        f"<h2>Probable label errors: {len(errors):,}</h2>",
        "<p>In threes: the picture, another of the identity it is filed under, one of the identity it looks like.</p>",
        sheet,
    ]
