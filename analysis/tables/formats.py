"""A `Table` record -> Markdown, LaTeX (booktabs), plain text for a terminal.

In: `Table`. Out: strings ending in a newline. Pure: no files.
LaTeX: `\\input{report/rank_table.tex}` in a document with `\\usepackage{booktabs}`; two columns wide.
"""

from __future__ import annotations

import re
import textwrap

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
TERMINAL_MARKS = {"best": "*", "tied": "~", "equivalent": "+"}
TERMINAL_LEGEND = {"best": "* best rank", "tied": "~ not distinguishable from it", "equivalent": "+ equivalent to it"}


def markdown(table: Table) -> str:
    """Heading, banner, table, caption, notes, missing trials."""
    parts = [f"# {table.title}"]
    if table.banner:
        parts.append(f"**{table.banner}**")
    parts.append("\n".join(_markdown_lines(table)))
    parts.append(" ".join(filter(None, [table.marks, table.caption])))
    if table.notes:
        parts.append("\n".join(f"- {note}" for note in table.notes))
    if table.missing:
        parts.append("Missing trials:\n\n" + "\n".join(f"- {line}" for line in table.missing))
    return "\n\n".join(parts) + "\n"


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
        if any(cell.spread for cell in cells):
            lines.append(_tex_line([_tex_spread(cell) for cell in cells]))
    lines.append(r"\midrule")
    lines.append(_tex_line([_tex_cell(column.cells[-1]) for column in table.columns]))
    lines += [r"\bottomrule", r"\end{tabular}", *_tex_notes(table), r"\end{table*}"]
    return "\n".join(lines) + "\n"


def terminal(table: Table, width: int = 100) -> str:
    """Means only, aligned, at most `width` characters wide where dropping secondary columns achieves it."""
    columns, dropped = _fitting(table.columns, width)
    grid = [_header_parts(column) for column in columns]
    texts = [_plain(column) for column in columns]
    widths = [
        max(len(head[0]), len(head[1]), *(len(text) for text in body)) for head, body in zip(grid, texts, strict=True)
    ]
    lines = [_aligned([head[part] for head in grid], widths) for part in (0, 1)]
    rule = "-" * len(max(lines, key=len))
    rows = [_aligned([body[i] for body in texts], widths) for i in range(table.rows + 1)]
    body = [*lines, rule, *rows[:-1], rule, rows[-1]]
    given = [vars(cell.mark) for column in columns for cell in column.cells]
    used = [words for name, words in TERMINAL_LEGEND.items() if any(each[name] for each in given)]
    remarks = ["; ".join(used)] if used else []
    if dropped:
        remarks.append(f"left out for width: {', '.join(dropped)}")
    folded = [line for remark in remarks for line in textwrap.wrap(remark, width)]
    return "\n".join(line.rstrip() for line in [*body, *folded]) + "\n"


def print_table(table: Table, width: int = 100) -> None:
    print(terminal(table, width), end="")


def _markdown_lines(table: Table) -> list[str]:
    heads = [column.name + MARKDOWN_ARROW[column.direction] for column in table.columns]
    lines = ["| " + " | ".join(heads) + " |", "|:--" + "|--:" * (len(heads) - 1) + "|"]
    for index in range(table.rows + 1):
        texts = [_markdown_cell(column.cells[index]) for column in table.columns]
        lines.append("| " + " | ".join(texts) + " |")
    return lines


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.mark.best else f"<u>{cell.text}</u>" if cell.mark.tied else cell.text
    text += "†" if cell.mark.equivalent else ""
    return f"{text} [{cell.spread}]" if cell.spread else text


def _tex(text: str) -> str:
    """Escaped for LaTeX; a minus sign before a number typeset as such."""
    escaped = "".join(TEX_SPECIAL.get(character, character) for character in text)
    return re.sub(r"(?<![\w-])-(?=\d)", "$-$", escaped)


def _tex_cell(cell: Cell) -> str:
    text = "--" if cell.text == "-" else _tex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.mark.best else rf"\underline{{{text}}}" if cell.mark.tied else text
    return text + (TEX_SPECIAL["†"] if cell.mark.equivalent else "")


def _tex_spread(cell: Cell) -> str:
    return rf"{{\tiny {_tex(cell.spread).replace('..', '--')}}}" if cell.spread else ""


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
    marks = f"{_tex(table.marks)} " if table.marks else ""
    return f"{banner}{_tex(table.title)}. {marks}{_tex(table.caption)}"


def _tex_notes(table: Table) -> list[str]:
    lines = [*table.notes, *(f"Missing: {line}." for line in table.missing)]
    if not lines:
        return []
    return [r"\par\smallskip", r"\begin{minipage}{\textwidth}\scriptsize", *_broken(lines), r"\end{minipage}"]


def _broken(lines: list[str]) -> list[str]:
    return [_tex(line) + r"\\" for line in lines[:-1]] + [_tex(lines[-1])]


def _header_parts(column: Column) -> tuple[str, str]:
    """consistency[mnv2] -> (consistency, [mnv2]); held-out loss -> (held-out, loss)."""
    for mark in ("[", " "):
        head, found, tail = column.name.partition(mark)
        if found:
            return head, found.strip() + tail
    return column.name, ""


def _plain(column: Column) -> list[str]:
    """The cells with their marks, padded so that the numbers stay below each other."""
    marks = ["".join(TERMINAL_MARKS[name] for name, given in vars(cell.mark).items() if given) for cell in column.cells]
    room = max(map(len, marks))
    return [cell.text + mark.ljust(room) for cell, mark in zip(column.cells, marks, strict=True)]


def _aligned(texts: list[str], widths: list[int]) -> str:
    first = texts[0].ljust(widths[0])
    return "  ".join([first, *(text.rjust(size) for text, size in zip(texts[1:], widths[1:], strict=True))])


def _column_width(column: Column) -> int:
    return max(*(len(part) for part in _header_parts(column)), *map(len, _plain(column))) + 2


def _fitting(columns: tuple[Column, ...], width: int) -> tuple[list[Column], list[str]]:
    """Drop the least needed columns until the rest fits; those of rank 0 stay."""
    kept, dropped = list(columns), []
    while sum(map(_column_width, kept)) - 2 > width and any(column.rank for column in kept):
        worst = max(reversed(kept), key=lambda column: column.rank)
        kept.remove(worst)
        dropped.append(worst.name)
    return kept, dropped
