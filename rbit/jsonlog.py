"""The log as JSON: one object a line. The only importer of pythonjsonlogger, which need not be installed."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone
from typing import Any

from pythonjsonlogger.json import JsonFormatter

LONE = re.compile("[\\ud800-\\udfff]")  # halves of characters, which strict readers of JSON refuse


class Objects(JsonFormatter):
    """Formats a record as an object: time, level, logger, message, what else it holds, and a traceback.

    All that is not ASCII is escaped, so an object is one line whatever is in it. What is half a character only is
    replaced.
    """

    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"}
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Returns the time in the form of RFC 3339, with milliseconds, in UTC."""
        return datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")

    def jsonify_log_record(self, log_data: dict[str, Any]) -> str:
        """Returns the object as text."""
        text = super().jsonify_log_record(log_data)
        if "\\ud" not in text:
            return text
        whole = json.dumps(json.loads(text), ensure_ascii=False)
        return json.dumps(json.loads(LONE.sub("\ufffd", whole)))
