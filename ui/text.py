"""Text from elsewhere, shown as it is written."""

import re
from datetime import datetime

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$~:&])")


MOMENT = "DD MMMM YYYY, HH:mm [UTC]"
"""The form of `moment`, for columns of tables."""

COUNTED = "Rows count from 1, without the header."
"""How the page, like the command line, numbers rows."""


def plain(text: str) -> str:
    """Escape everything that Streamlit's Markdown would read as more than text: links, images, colours, formulas."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def sentence(text: str) -> str:
    """The text with a capital at its beginning and a full stop at its end, unless another mark ends it."""
    ended = text if text.endswith((".", "?", "!")) else f"{text}."
    return ended[:1].upper() + ended[1:]


def short(text: str) -> str:
    """The beginning of a hash or an id."""
    return text[:8]


def moment(text: str) -> str:
    """A time of the API, to the minute."""
    return f"{datetime.fromisoformat(text):%d %B %Y, %H:%M} UTC"
