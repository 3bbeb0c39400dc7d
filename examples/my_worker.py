"""The smallest useful runner: it greets, names the package that it was asked for, and is done.

Its section in the INI file::

    [runner:ccap_any_latex_completezip]
    runner = python!my_worker:hello
    name = World
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jsonpickle


def hello(message: Any, set_status: Callable[..., None], settings: Mapping[str, str] | None = None) -> None:
    """Greets ``settings["name"]``.

    Arguments:
        message: the message; its ``body`` is a PyBit build request as it came from the queue.
        set_status: tells PyBit and the log what is going on.
        settings: the section's keys; ``name`` is required, and without it the job ends as Failed.
    """
    set_status("Building", f"started at {datetime.now():%H:%M:%S}")
    # rbit has checked the body before this function was called; otherwise this line would not be safe.
    build_request = jsonpickle.decode(message.body)

    if not settings or "name" not in settings:
        set_status("Failed", "the setting `name` is missing")
        return
    print(f"Hello {settings['name']}!")
    print(f"Building {build_request.get_package()}")

    set_status("Done", f"ended at {datetime.now():%H:%M:%S}")
