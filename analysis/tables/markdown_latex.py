"""A `Table` record -> Markdown, LaTeX (booktabs), plain text for a terminal.

In: `Table`. Out: strings ending in a newline. Pure: no files.
LaTeX: `\\input{report/rank_table.tex}` in a document with `\\usepackage{booktabs}`; two columns wide.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from analysis.study.scores import HIGHER, LOWER, NONE
from analysis.tables.rank_table import Cell, Column, Table

MARKDOWN_ARROW = {LOWER: " ↓", HIGHER: " ↑", NONE: ""}
TEX_ARROW = {LOWER: r"\,$\downarrow$", HIGHER: r"\,$\uparrow$", NONE: ""}
TEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "±": r"$\pm$",
}
TERMINAL_MARKS = {  # a field of CellStyle -> the mark behind the number, and what it means
    "best": ("*", "* best rank"),
    "tied": ("~", "~ no difference from it shown"),
    "equivalent": ("+", "+ as good as it"),
}


def markdown(table: Table) -> str:
    """Heading, banner, body, missing trials."""
    parts = [f"# {table.title}", *([f"**{table.banner}**"] if table.banner else []), markdown_body(table)]
    if table.missing:
        parts.append("Missing trials:\n\n" + "\n".join(f"- {line}" for line in table.missing))
    return "\n\n".join(parts) + "\n"


def markdown_body(table: Table) -> str:
    """Table, legend and caption, notes."""
    parts = ["\n".join(_markdown_lines(table)), " ".join(filter(None, [table.legend, table.caption]))]
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    return "\n\n".join(parts)


def plain_markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table of text: names, then numbers."""
    rule = [":--", *["--:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(each)} |" for each in (heads, rule, *lines))


def latex(table: Table) -> str:
    """A `table*` with booktabs rules; the range over seeds stands below its mean."""
    lines = [r"\begin{table*}", r"\centering", rf"\caption{{{_tex_caption(table)}}}"]
    lines += [r"\label{tab:rank}", r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule"]
    lines += [_tex_line([_tex_header(column, part) for column in table.columns]) for part in (0, 1)]
    lines.append(r"\midrule")
    for index in range(table.rows):
        cells = [column.cells[index] for column in table.columns]
        lines.append(_tex_line([_tex_cell(cell) for cell in cells]))
        if any(cell.seed_range for cell in cells):
            lines.append(_tex_line([_tex_seed_range(cell) for cell in cells]))
    lines.append(r"\midrule")
    lines.append(_tex_line([_tex_cell(column.cells[-1]) for column in table.columns]))
    lines += [r"\bottomrule", r"\end{tabular}", *_tex_notes(table), r"\end{table*}"]
    return "\n".join(lines) + "\n"


def terminal(table: Table, width: int = 100) -> str:
    """Means only, aligned, at most `width` characters wide where dropping secondary columns achieves it."""
    texts = {column.name: _aligned(column) for column in table.columns}
    columns, dropped = list(table.columns), []
    while sum(len(texts[column.name][0]) + 2 for column in columns) - 2 > width:
        least = max(reversed(columns), key=lambda column: column.drop_order)
        if not least.drop_order:
            break
        columns.remove(least)
        dropped.append(least)
    lines = ["  ".join(line) for line in zip(*(texts[column.name] for column in columns), strict=True)]
    rule = "-" * len(lines[0])
    styles = [vars(cell.style) for column in columns for cell in column.cells]
    used = [meaning for field, (_, meaning) in TERMINAL_MARKS.items() if any(style[field] for style in styles)]
    remarks = ["; ".join(used)] if used else []
    if dropped:
        remarks.append(f"left out for width: {', '.join(column.name for column in dropped)}")
    folded = [line for remark in remarks for line in textwrap.wrap(remark, width)]
    return "\n".join(line.rstrip() for line in [*lines[:2], rule, *lines[2:-1], rule, lines[-1], *folded]) + "\n"


def _markdown_lines(table: Table) -> list[str]:
    heads = [column.name + MARKDOWN_ARROW[column.direction] for column in table.columns]
    lines = ["| " + " | ".join(heads) + " |", "|:--" + "|--:" * (len(heads) - 1) + "|"]
    for index in range(table.rows + 1):
        texts = [_markdown_cell(column.cells[index]) for column in table.columns]
        lines.append("| " + " | ".join(texts) + " |")
    return lines


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.style.best else f"<u>{cell.text}</u>" if cell.style.tied else cell.text
    text += "†" if cell.style.equivalent else ""
    return f"{text} [{cell.seed_range}]" if cell.seed_range else text


def _tex(text: str) -> str:
    """Escaped for LaTeX; a minus sign before a number typeset as such."""
    escaped = "".join(TEX_SPECIAL.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def _tex_cell(cell: Cell) -> str:
    text = "--" if cell.text == "-" else _tex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.style.best else rf"\underline{{{text}}}" if cell.style.tied else text
    return text + (TEX_SPECIAL["†"] if cell.style.equivalent else "")


def _tex_seed_range(cell: Cell) -> str:
    return rf"{{\tiny {_tex(cell.seed_range).replace('..', '--')}}}" if cell.seed_range else ""


def _tex_header(column: Column, part: int) -> str:
    """The name on two lines, split before its protocol; the arrow goes with the first."""
    text = _tex(_header_parts(column)[part])
    if text.startswith("["):
        text = f"{{{text}}}"  # a bracket after \\ would be read as its optional argument
    return text + (TEX_ARROW[column.direction] if part == 0 else "")


def _tex_line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_caption(table: Table) -> str:
    banner = rf"\textbf{{{_tex(table.banner)}.}} " if table.banner else ""
    legend = f"{_tex(table.legend)} " if table.legend else ""
    return f"{banner}{_tex(table.title)}. {legend}{_tex(table.caption)}"


def _tex_notes(table: Table) -> list[str]:
    lines = [*table.notes, *(f"Missing: {line}." for line in table.missing)]
    if not lines:
        return []
    text = "\\\\\n".join(map(_tex, lines))
    return [r"\par\smallskip", r"\begin{minipage}{\textwidth}\scriptsize", text, r"\end{minipage}"]


def _header_parts(column: Column) -> tuple[str, str]:
    """fvd[NET] -> (fvd, [NET]); held-out loss -> (held-out, loss)."""
    for mark in ("[", " "):
        head, found, tail = column.name.partition(mark)
        if found:
            return head, found.strip() + tail
    return column.name, ""


def _aligned(column: Column) -> list[str]:
    """Two lines of heading, then the cells with their marks, all of one width; numbers stay below each other."""
    marks = ["".join(TERMINAL_MARKS[name][0] for name, on in vars(cell.style).items() if on) for cell in column.cells]
    room = max(map(len, marks))
    texts = [cell.text + mark.ljust(room) for cell, mark in zip(column.cells, marks, strict=True)]
    lines = [*_header_parts(column), *texts]
    width = max(map(len, lines))
    return [line.ljust(width) if column.name == "rank" else line.rjust(width) for line in lines]
