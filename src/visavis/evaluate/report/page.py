"""The HTML page of a report: one template, everything inlined, no script and no network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import groupby

from visavis.evaluate.report.figures import ImagePair, Plot
from visavis.evaluate.report.plots import to_svg
from visavis.evaluate.report.tables import Table
from visavis.runtimes import import_runtime

_TRAINING = "training: "  # plots of this name prefix stand in a section of their own


def render(
    *,
    title: str,
    subtitle: str,
    warnings: Sequence[str] = (),
    key: Sequence[tuple[str, str]] = (),
    tables: Sequence[Table] = (),
    plots: Sequence[Plot] = (),
    images: Sequence[ImagePair] = (),
    facts: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (),
    images_title: str = "Most confident mistakes",
) -> str:
    """Fill the template; every text is escaped, only the SVG of our own plots is not."""
    jinja2, markup = import_runtime("jinja2"), import_runtime("markupsafe").Markup
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("visavis.evaluate.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    drawn = [
        (p.name.startswith(_TRAINING), {"title": p.title, "note": p.note, "svg": markup(to_svg(p))}) for p in plots
    ]
    sections = [("Figures", [d for t, d in drawn if not t]), ("Training", [d for t, d in drawn if t])]
    grouped = [
        (
            group,
            [{"reference": _data_uri(p.reference), "probe": _data_uri(p.probe), "caption": p.caption} for p in pairs],
        )
        for group, pairs in groupby(images, key=lambda p: p.group)
    ]
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        warnings=warnings,
        key=key,
        tables=tables,
        plots=[(heading, figures) for heading, figures in sections if figures],
        images=grouped,
        images_title=images_title,
        facts=[(heading, entries) for heading, entries in facts if entries],
    )


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
