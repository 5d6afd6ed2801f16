"""Figures as files of equal bytes for equal figures."""

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

NO_FORMULAS: Any = {"text.parse_math": False}  # a name with two dollar signs is shown as it is


def rendered(figure: Figure, form: str) -> bytes:
    """The figure as `png` or `svg`; the same figure gives the same bytes."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "open_r1", "svg.fonttype": "none"} | NO_FORMULAS):
        figure.savefig(stream, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return stream.getvalue()
