"""Text from elsewhere, shown as it is written."""

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$~:&])")


def plain(text: str) -> str:
    """Escape everything that Streamlit's Markdown would read as more than text: links, images, colours, formulas."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
