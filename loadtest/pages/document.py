"""The page itself: one file that needs no other, reads on a dark screen and prints on paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loadtest.pages.canvas import GRID, INK, PALETTE, SHADE, Drawn
from loadtest.pages.markup import Markup, join, tag

_DARK_PALETTE = ("#5db4e8", "#f0883e", "#3fc79a", "#e39bc5", "#9fd4f5", "#f2c14e", "#a8a9aa")


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    content: Sequence[Markup]


def document(title: str, head: Sequence[Markup], sections: Sequence[Section]) -> str:
    """Sections without content are left out."""
    shown = [section for section in sections if section.content]
    body = tag("body", tag("header", tag("h1", title), *head), _contents(shown), tag("main", *_bodies(shown)))
    return f'<!doctype html>\n<html lang="en">{tag("head", *_head(title))}{body}</html>\n'


def figure(drawn: Drawn) -> Markup:
    note = [tag("p", drawn.plot.note, class_="note")] if drawn.plot.note else []
    words = tag("figcaption", tag("h3", drawn.plot.title), *note)
    return tag("figure", words, tag("div", drawn.svg, role="img", aria_label=drawn.plot.title))


def facts(pairs: Mapping[str, str]) -> Markup:
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in pairs.items()))


def badge(text: str, met: bool | None) -> Markup:
    """A verdict in words, and in colour too."""
    return tag("span", text, class_={True: "badge met", False: "badge missed", None: "badge unknown"}[met])


def _head(title: str) -> Iterator[Markup]:
    # Nothing is loaded and nothing runs, whatever a name on the page may try.
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    yield Markup('<meta charset="utf-8">')
    yield Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">')
    yield Markup('<meta name="viewport" content="width=device-width, initial-scale=1">')
    yield tag("title", title)
    yield tag("style", Markup(_CSS))


def _contents(sections: Sequence[Section]) -> Markup:
    links = (
        tag("li", tag("a", section.title, href=f"#section-{number}"))
        for number, section in enumerate(sections)
    )
    return tag("nav", tag("ul", *links), aria_label="contents")


def _bodies(sections: Sequence[Section]) -> Iterator[Markup]:
    for number, section in enumerate(sections):
        yield tag("section", tag("h2", section.title), join(section.content), id=f"section-{number}")


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
