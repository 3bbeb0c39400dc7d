"""Reads shell text as far as is needed to know where the placeholders in it stand, and who parses them again.

It knows nothing of messages and settings, and runs nothing. Used in the client, while the configuration is read.
"""

from __future__ import annotations

from rbit.shell_text.commands import read
from rbit.shell_text.parts import KEPT, Place, TooDeep, Use
from rbit.shell_text.risks import find

__all__ = ["KEPT", "Place", "TooDeep", "Use", "find", "read"]
