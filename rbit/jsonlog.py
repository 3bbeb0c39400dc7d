"""The log as JSON: one object a line. The only importer of pythonjsonlogger, which need not be installed."""

from __future__ import annotations

import logging
from datetime import datetime, timezone

from pythonjsonlogger.json import JsonFormatter


class Objects(JsonFormatter):
    """Formats a record as an object: time, level, logger, message, what else it holds, and a traceback.

    All that is not ASCII is escaped, so an object is one line whatever is in it.
    """

    def __init__(self) -> None:
        names = {"asctime": "time", "levelname": "level", "name": "logger", "exc_info": "traceback"}
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields=names)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """Returns the time in the form of RFC 3339, with milliseconds, in UTC."""
        return datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
