"""What the site adds to the pages: recorded results, and formulas as MathML, which browsers draw."""

import re
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

RESULTS = Path("benchmarks/results")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LINK = re.compile(r"\[([^]]+)\]\(([^)]+)\)")
INLINE_CODE = re.compile(r"<code>[^<]*--[^<]*</code>")
FLAG = re.compile(r"--[a-z][a-z-]*")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages, figures and tables of the recorded results below ``results/``."""
    for path in sorted(RESULTS.rglob("*")):
        if path.suffix in (".md", ".png", ".svg", ".csv"):
            page = File.generated(
                config, f"results/{path.relative_to(RESULTS)}", abs_src_path=str(path.resolve())
            )
            files.append(page)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links between pages work in the repository; here the results are below the other pages.

    The records are not in the site, so numbers are not linked to them.
    """
    if page.file.src_uri == "results/README.md":
        markdown = LINK.sub(_without_records, markdown)
    return markdown.replace("](../benchmarks/results/", "](results/").replace("](../../docs/", "](../")


def _without_records(link: re.Match[str]) -> str:
    text, target = link.groups()
    return text if (RESULTS / target).is_dir() else link[0]


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML; the name of a flag is never broken after its hyphens."""
    return INLINE_CODE.sub(_with_flags_whole, FORMULA.sub(_as_mathml, html))


def _with_flags_whole(match: re.Match[str]) -> str:
    return FLAG.sub(r'<span class="flag">\g<0></span>', match[0])


def _as_mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    spaced = unescape(match[2]).replace(r"\log ", r"\log\,")  # the converter sets no space after it
    return convert(spaced, display=display)
