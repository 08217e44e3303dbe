"""The HTML page of a report: one template, everything inlined, no script and no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from visavis.evaluate.plots import to_svg
from visavis.evaluate.report import PicturePair, Plot, Report
from visavis.evaluate.tables import Table, percent

_TRAINING = "training: "  # plots of this name prefix stand in a section of their own


def render_report(report: Report) -> str:
    """The page of one evaluation."""
    name = str(report.model.get("name", "model"))
    return render(
        title=f"{name}: {report.protocol}" if _compares(report) else f"{name} on {report.protocol}",
        subtitle=_subtitle(report.context),
        key=_key_figures(report.results),
        tables=report.tables,
        plots=report.plots,
        pictures=report.pictures,
        facts=_facts(report),
        pictures_title="The hardest pairs" if _compares(report) else "Most confident mistakes",
    )


def _compares(report: Report) -> bool:
    """Whether it is about several models."""
    return "tests" in report.results or "seed_effect" in report.results


def render(
    *,
    title: str,
    subtitle: str,
    key: Sequence[tuple[str, str]] = (),
    tables: Sequence[Table] = (),
    plots: Sequence[Plot] = (),
    pictures: Sequence[PicturePair] = (),
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (),
    pictures_title: str = "Most confident mistakes",
) -> str:
    """Fill the template; every text is escaped, only the SVG of our own plots is not."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("visavis.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    drawn = [
        (p.name.startswith(_TRAINING), {"title": p.title, "note": p.note, "svg": Markup(to_svg(p))}) for p in plots
    ]
    sections = [("Figures", [d for t, d in drawn if not t]), ("Training", [d for t, d in drawn if t])]
    grouped = [
        (
            group,
            [{"reference": _data_uri(p.reference), "probe": _data_uri(p.probe), "caption": p.caption} for p in pairs],
        )
        for group, pairs in groupby(pictures, key=lambda p: p.group)
    ]
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        key=key,
        tables=tables,
        plots=[(heading, figures) for heading, figures in sections if figures],
        pictures=grouped,
        pictures_title=pictures_title,
        facts=[(heading, entries) for heading, entries in facts if entries],
    )


def _key_figures(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The three or four figures a reader looks for first."""
    key = []
    accuracy = results.get("accuracy")
    if isinstance(accuracy, Mapping):
        key.append(("accuracy", percent(accuracy["mean"])))
    ranks = [n for n in ("rank_1", "top_1") if isinstance(results.get(n), float)]
    key += [(n.replace("_", "-"), percent(results[n])) for n in ranks]
    rates = {k: v for k, v in (results.get("tmr_at_fmr") or {}).items() if v is not None}
    if rates:
        name, value = list(rates.items())[-1]
        key.append((f"TMR at FMR {name}", percent(value)))
    if isinstance(results.get("eer"), float):
        key.append(("equal error rate", percent(results["eer"])))
    if isinstance(results.get("auc"), float):
        key.append(("area under the ROC", f"{results['auc']:.4f}"))
    return key[:4]


def _subtitle(context: Mapping[str, Any]) -> str:
    data = context.get("data", {})
    parts = [f"{value:,} {name}" for name, value in data.items() if isinstance(value, int) and name != "folds_in_list"]
    time = context.get("environment", {}).get("time", "")
    return " · ".join([*parts, time.replace("T", " ").replace("+00:00", " UTC")])


def _facts(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """Failures, model card, and how to do it again."""
    context = report.context
    failures = context.get("failures_to_acquire", {})
    listed = [(name, reason) for name, reason in list(failures.get("reasons", {}).items())[:50]]
    if failures.get("images", 0) > len(listed):
        listed.append(("…", f"{failures['images'] - len(listed):,} more in the JSON"))
    card = dict(report.model.get("card", {}))
    known = {k: v for k, v in report.model.items() if k != "card"}
    if "preprocess" in known:  # which says the flip that was used
        known.pop("flip", None)
    model = [*known.items(), *((k, v) for k, v in card.items() if k not in known)]
    environment = context.get("environment", {})
    data = context.get("data", {})
    repeat = [
        ("command", environment.get("command", "")),
        *((k, v) for k, v in data.items() if k in ("source", "lists", "comparisons_digest")),
        ("scores", context.get("scores", "")),
        *context.get("settings", {}).items(),
        ("versions", ", ".join(f"{k} {v}" for k, v in environment.get("versions", {}).items())),
        *(environment.get("machine", {})).items(),
        *((f"seconds, {k}", f"{v:.2f}") for k, v in context.get("seconds", {}).items() if isinstance(v, float)),
        ("cached embeddings", context.get("seconds", {}).get("cached_embeddings", "")),
    ]
    return [
        ("Pictures that could not be acquired", listed),
        ("Model card", [(_words(k), _show(v)) for k, v in model if v not in ("", {}, None) and not _compares(report)]),
        ("To reproduce", [(_words(k), _show(v)) for k, v in repeat if v not in ("", None)]),
    ]


def _words(name: str) -> str:
    return str(name).replace("_", " ")


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(k)} {_show(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " × ".join(map(str, value)) if len(value) == 2 else ", ".join(map(str, value))
    return str(value)


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
