"""What the site adds to the pages: recorded results, and formulas as MathML, which browsers draw."""

import re
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

RESULTS = Path("benchmarks/results")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and figures of the recorded results below ``results/``."""
    for path in sorted(RESULTS.rglob("*")):
        if path.suffix in (".md", ".png", ".svg"):
            page = File.generated(
                config, f"results/{path.relative_to(RESULTS)}", abs_src_path=str(path.resolve())
            )
            files.append(page)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links between pages work in the repository; here the results are below the other pages."""
    return markdown.replace("](../benchmarks/results/", "](results/")


def on_page_content(html: str, **_: Any) -> str:
    return FORMULA.sub(_as_mathml, html)


def _as_mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    return convert(unescape(match[2]), display=display)
