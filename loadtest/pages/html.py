"""The page: one file that needs no other, reads on a dark screen and prints on paper. HTML comes from
functions: whatever is not markup already is escaped, so that no name can become a tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from loadtest.pages.plots import GRID, INK, PALETTE, SHADE, Drawn
from loadtest.pages.tables import Grid, Mark

_DARK_PALETTE = ("#5db4e8", "#f0883e", "#3fc79a", "#e39bc5", "#9fd4f5", "#f2c14e", "#a8a9aa")


class Markup(str):
    """Text that is HTML; only this module makes it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    content: Sequence[Markup]


def tag(name: str, *content: str, **attributes: str) -> Markup:
    """`class_` stands for the attribute class."""
    pairs = "".join(f' {key.rstrip("_")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{pairs}>{join(content)}</{name}>")


def join(content: Iterable[str]) -> Markup:
    """Control characters, which no HTML may have, are replaced."""

    def text(part: str) -> str:
        shown = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in part)
        return escape(shown)

    return Markup("".join(part if isinstance(part, Markup) else text(part) for part in content))


def table(grid: Grid) -> Markup:
    """The first column is text, the others are numbers or verdicts; wide ones scroll by themselves."""
    head = tag("tr", *(tag("th", column, scope="col") for column in grid.columns))
    body = [
        tag(
            "tr",
            tag("th", str(row[0]), scope="row"),
            *(tag("td", badge(cell) if isinstance(cell, Mark) else cell) for cell in row[1:]),
        )
        for row in grid.rows
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_="scroll")


def badge(mark: Mark) -> Markup:
    """A verdict in words, and in colour too."""
    colour = {True: "badge met", False: "badge missed", None: "badge unknown"}[mark.met]
    return tag("span", mark.text, class_=colour)


def figure(drawn: Drawn) -> Markup:
    note = [tag("p", drawn.plot.note, class_="note")] if drawn.plot.note else []
    words = tag("figcaption", tag("h3", drawn.plot.title), *note)
    svg = tag("div", Markup(drawn.svg), role="img", aria_label=drawn.plot.title)
    return tag("figure", words, svg)


def facts(pairs: Mapping[str, str]) -> Markup:
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs.items()))


def listed(items: Sequence[str]) -> list[Markup]:
    return [tag("ul", *(tag("li", item) for item in items), class_="doubts")] if items else []


def document(title: str, head: Sequence[Markup], sections: Sequence[Section]) -> str:
    """Sections without content are left out."""
    shown = [section for section in sections if section.content]
    links = (
        tag("li", tag("a", section.title, href=f"#section-{number}")) for number, section in enumerate(shown)
    )
    bodies = (
        tag("section", tag("h2", section.title), join(section.content), id=f"section-{number}")
        for number, section in enumerate(shown)
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), *head),
        tag("nav", tag("ul", *links), aria_label="contents"),
        tag("main", *bodies),
    )
    return f'<!doctype html>\n<html lang="en">{tag("head", *_head(title))}{body}</html>\n'


def _head(title: str) -> Iterator[Markup]:
    # Nothing is loaded and nothing runs, whatever a name on the page may try.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    yield Markup('<meta charset="utf-8">')
    yield Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    yield Markup('<meta name="viewport" content="width=device-width, initial-scale=1">')
    yield tag("title", title)
    yield tag("style", Markup(_CSS))


def _variables(ink: str, grid: str, shade: str, lines: Sequence[str]) -> str:
    pairs = {"--ink": ink, "--grid": grid, "--shade": shade}
    pairs |= {f"--line-{index}": colour for index, colour in enumerate(lines)}
    return "".join(f"{name}:{value};" for name, value in pairs.items())


_LIGHT = _variables(INK, GRID, SHADE, PALETTE) + "--paper:#fff;--soft:#5b5d60;color-scheme:light;"
_DARK = (
    _variables("#e4e5e6", "#3c3f43", "#24272a", _DARK_PALETTE)
    + "--paper:#17191b;--soft:#a3a6aa;color-scheme:dark;"
)
_CSS = f"""
:root{{{_LIGHT}}}
@media screen and (prefers-color-scheme:dark){{:root{{{_DARK}}}}}
""" + """
*{box-sizing:border-box}
body{margin:0 auto;max-width:64rem;padding:1.5rem;background:var(--paper);color:var(--ink);
 font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
h1{font-size:1.6rem;margin:0 0 .4rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;padding-bottom:.2rem;border-bottom:1px solid var(--grid)}
h3{font-size:1rem;margin:1.2rem 0 0}
h1,h2,h3,dd,td,th,p,li{overflow-wrap:anywhere}
p{margin:.4rem 0}
.note{color:var(--soft);font-size:.87rem;margin:.1rem 0 0}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(15rem,1fr));gap:.3rem 1.5rem;margin:.8rem 0}
dt{color:var(--soft);font-size:.8rem}
dd{margin:0}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;list-style:none;padding:.5rem 0;margin:1rem 0 0;
 border-block:1px solid var(--grid)}
a{color:inherit}
.scroll{overflow-x:auto}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.22rem .8rem .22rem 0;text-align:right;border-bottom:1px solid var(--grid);font-weight:400}
thead th{color:var(--soft);font-size:.8rem;vertical-align:bottom}
th:first-child{text-align:left}
.badge{padding:.08rem .55rem;border-radius:.25rem;font-weight:600;white-space:nowrap}
.met{background:#d6f0e4;color:#04563c}.missed{background:#fbdcc9;color:#852d00}
.unknown{background:#e8e8ea;color:#45474a}
.doubts{border-left:4px solid var(--line-5);padding-left:1.6rem}
figure{margin:0 0 1rem;break-inside:avoid}
svg{width:100%;height:auto;display:block}
svg text{font-family:system-ui,-apple-system,"Segoe UI",sans-serif!important}
pre{overflow-x:auto;background:var(--shade);padding:.8rem;font-size:.82rem;line-height:1.4}
@media print{body{max-width:none;padding:0}nav{display:none}pre{white-space:pre-wrap}}
""".strip()
