"""A figure as an SVG file that is the same for the same numbers."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def svg_bytes(figure: Figure) -> bytes:
    """Return the SVG file of a figure: without its date, and with names that depend on nothing but their order.

    matplotlib names clip paths by a hash of their places, whose last bits differ from time to time.
    """
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kdlab"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    svg = content.getvalue()
    for number, name in enumerate(dict.fromkeys(re.findall(rb"url\(#(p[0-9a-f]+)\)", svg)), start=1):
        svg = re.sub(rb"(#|id=\")%b\b" % name, rb"\1clip%d" % number, svg)
    return svg
