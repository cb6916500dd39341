"""How the page shows texts from other sources."""

import pytest

from ui.text import plain


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("accuracy 0.95", r"accuracy 0\.95"),
        ("[the best](http://evil.test)", r"\[the best\]\(http\://evil\.test\)"),
        ("![](http://evil.test/pixel)", r"\!\[\]\(http\://evil\.test/pixel\)"),
        ("<script>alert(1)</script>", r"\<script\>alert\(1\)\</script\>"),
        (":red[**passed**] $x$", r"\:red\[\*\*passed\*\*\] \$x\$"),
        ("one\n\n# two", r"one \# two"),
    ],
)
def test_markdown_in_a_text_is_escaped(written: str, shown: str) -> None:
    assert plain(written) == shown
