"""What is shown of a rewrite and of an evaluation. Texts are shown as they are: nothing in them is markup."""

from hy_rewrite import FIELDS, Evaluation, Rewrite, clean
from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_rewrite(result: Rewrite) -> None:
    """Print the original, the rewrite with its fields, and what each version of it lacked."""
    table = Table(show_header=False, show_lines=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    _row(table, "original", result.original)
    _row(table, "rewrite", result.rewritten)
    _row(table, "by", ", ".join(part for part in (result.by, result.mode) if part))
    if result.fallback is not None:
        _row(table, "fallback", f"the original is kept: {result.fallback}")
    for name in FIELDS:
        if result.fields.get(name):
            _row(table, name.replace("_", " "), result.fields[name])
    for number, version in enumerate(result.rounds, 1):
        notes = [f"lost: {note}" for note in version.lost] + [f"invented: {note}" for note in version.invented]
        _row(table, f"version {number}", "\n".join([*notes, *version.faults]) or "nothing lost, nothing invented")
        if version.text and version.text != result.rewritten:
            _row(table, "", version.text)
    Console().print(table)


def show_evaluation(found: Evaluation, count: int) -> None:
    """Print the figures of an evaluation of so many rewrites."""
    table = Table("measured", "share", title=f"{count} rewrites")
    rows = [(f"{kind}s kept", share) for kind, share in found.kept.items()]
    rows += [
        ("faithful: nothing lost or invented", found.faithful),
        ("structure: the required fields, no others", found.structured),
        ("fields that say something", found.filled),
        ("in the language's script", found.in_language),
        ("short enough", found.short_enough),
    ]
    for name, share in rows:
        table.add_row(name, str(share))
    table.add_row("characters, on average", f"{found.length:.0f}")
    Console().print(table)


def _row(table: Table, name: str, text: str) -> None:
    table.add_row(name, Text("\n".join(clean(line) for line in text.split("\n"))))
