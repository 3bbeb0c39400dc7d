"""Texts as strangers write them, for all targets."""

from __future__ import annotations

import re

from hypothesis import strategies as st

CANARY = "CANARY"  # the name of a file that nothing may make
NASTY = [
    f"$(touch {CANARY})`touch {CANARY}`;touch {CANARY}\ntouch {CANARY}\n", f"'; touch {CANARY}; '",
    f'"; touch {CANARY}; "', f")}}; touch {CANARY}; esac", f"\nEOF\ntouch {CANARY}\n", f"| touch {CANARY} &",
    f"> {CANARY}", "-rf", "--", "", " ", "\n", "\\", "*", "~", "!", "%ID", "%%", "$x", "${x}", "\x1b[2J",
    "\x9b31m", "\x1b]0;x\x07", "\x00", "\r", "\x85", "\u2028", "\u202e", "\ud800", "\udfff", "..", "../", "/",
    "/etc/passwd", ".", "a" * 300, "ü" * 130, "\U0001f600", "\x7f", "\t",
]
texts = st.one_of(
    st.sampled_from(NASTY), st.text(max_size=30),
    st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=4)), max_size=4).map("".join),
    st.text(st.sampled_from("aZ_0-./\\ '\"$`;&|<>()%\n\r\t\x00\x1b\x9b\x85"), max_size=20),
)
# Without half characters.
utf8 = texts.map(lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"))


def is_harmless(text: str) -> bool:
    """Whether a text may go to a terminal: no control characters but tabs and newlines, and no other line ends."""
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", text)
