"""The page of all tables, and the few figures of the README, written from the files of results."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from _catalogue import BENCHMARKS, Headline
from _results import HEAD, Result, Row, cores_text, line, place_text, quantity, share_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "benchmarks" / "README.md"
README = ROOT / "README.md"
MARKERS = ("<!-- figures -->", "<!-- end of figures -->")
FIGURE_IN_A_SENTENCE = re.compile(r"[\d.]+<!-- (?P<text>.+?)(; (?P<who>.+?))? -->")
OWN_WAY = re.compile(r"(ptree|pt|look|to_onnx|open_foreign)\b")
"""How the names of further ways to use ptree begin, which are nothing to compare it with."""
INTRODUCTION = """\
# What it costs

One script for each claim, beside hand-written JAX and other libraries. `python -m benchmarks --all --json` measures, and writes the
files in [results](results); `python -m benchmarks --tables` writes this page from them. ("Taken from its printed table": the file was
made from what the script had printed.) `--list` names all benchmarks, and `--quick` takes fewer rounds. Each script also runs alone,
by the command above its table.

How to read a table:

- *measured*: the time or the memory of this row. *ptree / this*: ptree's time or memory over that of this row. Below 1, ptree needs
  less. Where there are several ways to use ptree, the name in brackets says which one is compared. ± is half the distance between
  the quartiles. A ratio with ± is the median over turns, so it need not be the ratio of the two times that are shown.
- *target*: what the project wants for the ratio of this row, or for what is measured where the row has no ratio. *off target by*: how
  far it is from that, as a share of the target; empty where the target is met.
- *plain bytes*: the bytes of all arrays in one file, without names; *renamed*: written beside and then moved, as ptree does.
- "2 of 16 cores": the machine has 16 cores, and the benchmark could use 2 of them. "busy with 1.5 other processes at the start": so
  many programs ran beside it on average in the minute before.
- *dispatch*: the time of calling a compiled function that computes next to nothing. *carry*: moving the state of an optimiser to a
  changed model. "(a Tree)", "(dicts)", "(two groups)", "(stacked)", ...: the way to use ptree that is compared.
- The files of results have more rows than the tables: other sizes, other facts.
"""
FOR_CONTRIBUTORS = """\
## For contributors

Counts over the source code. They say nothing of what ptree costs its users.
"""


def page(results: Mapping[str, Sequence[Result]]) -> str:
    """The text of benchmarks/README.md."""
    unknown = [name for name in results if name not in BENCHMARKS]
    assert not unknown, f"results of no benchmark: {unknown}"
    for_users = [name for name, benchmark in BENCHMARKS.items() if not benchmark.for_contributors]
    for_contributors = [name for name in BENCHMARKS if name not in for_users]
    sections = [section(name, results.get(name, [])) for name in for_users]
    last_sections = [section(name, results.get(name, [])) for name in for_contributors]
    return "\n".join([INTRODUCTION, overview(for_users, results), *sections, FOR_CONTRIBUTORS, *last_sections])


def overview(names: Sequence[str], results: Mapping[str, Sequence[Result]]) -> str:
    """How many targets each benchmark has, and how many are missed, on each machine."""
    lines = ["| benchmark | machine | targets | missed |", "| --- | --- | ---: | ---: |"]
    for name in names:
        title = BENCHMARKS[name].title
        for result in results.get(name, []):
            targets = [row for row in result.rows if row.aim is not None]
            missed = [row for row in targets if row.missed_by is not None]
            link = f"[{title}](#{title.lower().replace(' ', '-')})"
            lines.append(f"| {link} | {machine_text(result)} | {len(targets)} | {len(missed) or ''} |")
    return "\n".join([*lines, ""])


def machine_text(result: Result) -> str:
    accelerator = result.machine["accelerator"]
    return cores_text(result.machine) if accelerator == "none" else accelerator


def section(name: str, results: Sequence[Result]) -> str:
    benchmark = BENCHMARKS[name]
    marks = "###" if benchmark.for_contributors else "##"
    parts = [f"{marks} {benchmark.title}\n\n{benchmark.about}\n"]
    if not results:
        parts.append(f"Not measured yet: `python benchmarks/{benchmark.script}`.\n")
    return "\n".join([*parts, *map(measured_once, results)])


def measured_once(result: Result) -> str:
    """The command, the place and the table of one run."""
    shown = [row for row in result.rows if not row.in_file_only or row.missed_by is not None]
    note = f" {result.note}" if result.note else ""
    lines = [f"`{result.command}`: {place_text(result)}.{note}\n", HEAD]
    before: Row | None = None
    for row in shown:
        lines.append(line(without_repetition(row, before)))
        before = row
    return "\n".join(lines) + "\n"


def without_repetition(row: Row, before: Row | None) -> Row:
    """A row that says the same thing as the one before in its first cell leaves it empty."""
    if before is not None and (row.what, row.size) == (before.what, before.size):
        return replace(row, what="", size="")
    return row


# -------------------------------------------------------------------------- figures of the README


def figures(results: Mapping[str, Result]) -> str:
    """A table of the most telling rows of each benchmark; of those that were measured."""
    lines = ["| what | ptree / others |", "| --- | --- |"]
    for name, benchmark in BENCHMARKS.items():
        if name in results:
            lines += [figure(headline, results[name]) for headline in benchmark.headlines]
    return "\n".join(lines)


def figure(headline: Headline, result: Result) -> str:
    first, *others = telling_rows(headline, result.rows)
    sizes = {each.size for each in result.rows if fits(headline, each)}
    text = f"{headline.text}, {first.size}" if len(sizes) > 1 else headline.text
    if first.ratio is None:
        return f"| {text} | takes {quantity(first.value, first.unit)} |"
    beside = [f"{row.who} {share_text(ratio(row))}" for row in (first, *others)]
    return f"| {text} | {' · '.join(beside)} |"


def telling_rows(headline: Headline, rows: Sequence[Row]) -> list[Row]:
    """The rows of a headline: all that are compared with its way to use ptree, the largest ratio first; or one without a ratio.

    Raises:
        LookupError: no row fits, since the script has other names now.
    """
    fitting = [row for row in rows if fits(headline, row)]
    if not fitting:
        raise LookupError(f"no row fits the headline {headline}")
    with_ratio = [row for row in fitting if row.ratio is not None and not OWN_WAY.match(row.who)]
    if not with_ratio:
        return fitting[:1]
    way = headline.way or with_ratio[0].ratio_of
    of_this_way = [row for row in with_ratio if row.ratio_of == way]
    of_this_way.sort(key=ratio, reverse=True)
    largest = of_this_way[0]
    return [row for row in of_this_way if (row.what, row.size) == (largest.what, largest.size)]


def ratio(row: Row) -> float:
    assert row.ratio is not None
    return row.ratio


def fits(headline: Headline, row: Row) -> bool:
    return row.what in headline.what.split("|") and headline.size in ("", row.size)


def with_figures(readme: str, results: Mapping[str, Result]) -> str:
    """The README with the figures of these results in its sentences, and in the table between its two markers."""
    return with_table(with_figures_in_sentences(readme, results), figures(results))


def with_figures_in_sentences(readme: str, results: Mapping[str, Result]) -> str:
    """A page in which each number before the comment `<!-- text of a headline; who -->` is the ratio of ptree to this one.

    Raises:
        ValueError: no headline has this text, or it was not measured beside this one.
    """
    shown: dict[tuple[str, str], str] = {}
    for name in BENCHMARKS.keys() & results.keys():
        for headline in BENCHMARKS[name].headlines:
            for row in telling_rows(headline, results[name].rows):
                if row.ratio is not None:
                    shown[headline.text, row.who] = share_text(row.ratio)

    def filled_in(match: re.Match[str]) -> str:
        text, who = match["text"], match["who"] or ""
        if (text, who) not in shown:
            raise ValueError(f"README.md has a figure of {text!r} beside {who!r}: no such headline was measured")
        return f"{shown[text, who]}<!-- {text}; {who} -->"

    return FIGURE_IN_A_SENTENCE.sub(filled_in, readme)


def with_table(readme: str, table: str) -> str:
    """The README with this table between its two markers; as it is, if it has none."""
    start, end = MARKERS
    if start not in readme:
        return readme
    before, rest = readme.split(start, 1)
    if end not in rest:
        raise ValueError(f"README.md has {start}, but no {end} after it")
    return f"{before}{start}\n{table}\n{end}{rest.split(end, 1)[1]}"
