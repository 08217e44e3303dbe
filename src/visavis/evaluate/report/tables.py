"""A table of figures and its four faces: plain text, Markdown, LaTeX and (in the report's template) HTML."""

from __future__ import annotations

from dataclasses import dataclass

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "…": r"\ldots{}",
    "′": "$'$",
    "−": "$-$",
    "·": r"$\cdot$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under columns of text; the first column names the row. `note` says what a reader must know.

    A column with nothing in any row (intervals nobody asked for) is left out.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        odd = [row for row in self.rows if len(row) != len(self.columns)]
        if odd:
            raise ValueError(f"table {self.title!r} has {len(self.columns)} columns and the row {odd[0]}")
        full = [c for c in range(len(self.columns)) if not c or any(row[c] for row in self.rows)]
        if self.rows and len(full) < len(self.columns):
            object.__setattr__(self, "columns", tuple(self.columns[c] for c in full))
            object.__setattr__(self, "rows", tuple(tuple(row[c] for c in full) for row in self.rows))

    def to_text(self) -> str:
        """Aligned columns for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[c]) for line in lines) for c in range(len(self.columns))]
        text = [
            "  ".join(_pad(cell, w, c) for c, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in lines
        ]
        text.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join([self.title, *text, *([self.note] if self.note else [])])

    def to_markdown(self) -> str:
        """A GitHub-flavored table."""
        head = "| " + " | ".join(c.replace("|", r"\|") for c in self.columns) + " |"
        rule = "|" + "|".join("---" if c == 0 else "---:" for c in range(len(self.columns))) + "|"
        rows = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in self.rows]
        return "\n".join([f"**{self.title}**", "", head, rule, *rows, *(["", self.note] if self.note else [])])

    def to_latex(self) -> str:
        """A booktabs table."""
        rows = [" & ".join(map(to_tex, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                r"\begin{table}\centering",
                rf"\caption{{{to_tex(self.title)}{'. ' + to_tex(self.note) if self.note else ''}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}\toprule",
                " & ".join(map(to_tex, self.columns)) + r" \\ \midrule",
                *rows,
                r"\bottomrule\end{tabular}\end{table}",
            ]
        )


def percent(value: float | None, digits: int = 2) -> str:
    """A rate as a percentage; a dash where the data cannot support it."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def percent_range(interval: tuple[float, float] | list[float] | None, digits: int = 2) -> str:
    """An interval of rates as percentages."""
    return "" if interval is None else f"{100 * interval[0]:.{digits}f} – {100 * interval[1]:.{digits}f}"


def number(value: float | None, digits: int = 4) -> str:
    """A plain figure."""
    return "–" if value is None else f"{value:.{digits}f}"


def p_value(value: float) -> str:
    """A p-value to three digits."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _pad(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column == 0 else cell.rjust(width)


def to_tex(text: str) -> str:
    """Text with what LaTeX reads as commands escaped."""
    return "".join(_LATEX.get(c, c) for c in text)
