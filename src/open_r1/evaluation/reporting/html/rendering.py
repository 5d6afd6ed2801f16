"""Any page of ours as one HTML file that needs nothing else: no network, no other file, no library.

A page extends `base.html`, which has its header, keyboard and policy; `parts.html` has tables, figures and notes. Texts
are escaped, or stand in blocks that the script reads as text. The policy allows nothing to be fetched and no script but
the page's own, which it names by its hash.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

STYLES, SCRIPTS = ("base.css",), ("base.js",)  # of every page


def render(template: str, styles: Sequence[str] = (), scripts: Sequence[str] = (), **context: Any) -> bytes:
    """A page as UTF-8.

    Args:
        template: a file of this folder that extends `base.html`.
        styles: style sheets beside the general one, in the order of the page.
        scripts: scripts beside the general one, joined in this order into one: their top-level names are shared.
        context: what the template needs; for `base.html` the `title`, `links` (target and text of each section) and
            `banners` (texts).
    """
    loader = PackageLoader("open_r1.evaluation.reporting", "html")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["short_value"] = short_value

    def joined(names: Sequence[str]) -> str:
        return "\n".join(loader.get_source(environment, name)[0] for name in names)

    script = joined([*SCRIPTS, *scripts])
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    css = joined([*STYLES, *styles])
    page = environment.get_template(template)
    text = page.render(css=Markup(css), script=Markup(script), script_hash=Markup(digest), **context)
    return text.encode("utf-8", "backslashreplace")


def short_value(value: Any) -> str:
    """An entry of a manifest as text of bearable length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:297] + "..."
