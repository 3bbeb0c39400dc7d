"""A test on a node that tells which rights its users are asked for, and grants them by RabbitMQ's own patterns.

It runs in the process that tests.
"""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from typing import ClassVar

from tests.support.case import OwnNodeCase
from tests.support.http_wire import Answer, Request, Server
from tests.support.node import PrivateNode
from tests.support.processes import free_port

KINDS = ("configure", "write", "read")
PLUGIN = "rabbitmq_auth_backend_http"
# Both are asked, and both must allow it: the first tells us.
ADVANCED = """[
  {{rabbit, [{{auth_backends, [{{rabbit_auth_backend_internal,
    [rabbit_auth_backend_http, rabbit_auth_backend_internal]}}]}}]}},
  {{rabbitmq_auth_backend_http, [{{http_method, post}}, {paths}]}}
]."""


class RightsCase(OwnNodeCase):
    """A test whose users have the rights that it gives them.

    Attributes:
        asked: the names that each user was asked the right for, by the user and the kind of the right.
    """

    asked: ClassVar[dict[tuple[str, str], set[str]]] = defaultdict(set)

    @classmethod
    def make_node(cls) -> PrivateNode:
        """Return a node that asks us, too."""
        if cls._own is None:
            port = cls._serve()
            kinds = ("user", "vhost", "resource", "topic")
            paths = ", ".join(f'{{{kind}_path, "http://127.0.0.1:{port}/{kind}"}}' for kind in kinds)
            cls._own = PrivateNode(advanced=ADVANCED.format(paths=paths), plugins=(PLUGIN,))
            cls.addClassCleanup(cls._own.stop)
            cls._own.start()
        return cls._own

    @classmethod
    def _serve(cls) -> int:
        """Listen to what RabbitMQ asks; return the port."""
        while True:
            port = free_port()
            with contextlib.suppress(OSError):  # another process has it by now
                server = Server(port, cls._answer)
                cls.addClassCleanup(server.end)
                return port

    @classmethod
    def _answer(cls, request: Request, server: Server) -> Answer:
        if request.path == "/resource":
            form = request.form
            cls.asked[form["username"], form["permission"]].add(form["name"])
        return Answer(200, body="allow")

    def setUp(self) -> None:
        """Forget what was asked."""
        super().setUp()
        self.asked.clear()

    def add_user(self, name: str) -> None:
        """Add a user without rights, whose password is its name; it is removed after the test."""
        self.node.ctl("add_user", name, name)
        self.addCleanup(self.node.ctl, "delete_user", name)

    def assert_least(self, user: str, patterns: tuple[str, str, str]) -> None:
        """Fail unless each alternative of a user's patterns fits a name that it was asked the right for."""
        for kind, pattern in zip(KINDS, patterns, strict=True):
            asked = self.asked[user, kind]
            parts = alternatives(pattern)
            unused = [part for part in parts if not any(re.fullmatch(part, name) for name in asked)]
            self.assertEqual(unused, [], f"{user} was never asked for these rights to {kind}, but for {asked}")
            refused = [name for name in asked if not re.search(pattern, name)]
            self.assertEqual(refused, [], f"{user} was refused these rights to {kind}")


def alternatives(pattern: str) -> list[str]:
    """Return the alternatives of a pattern of the form ``^(a|b)$``, ``^a$`` or ``^$``."""
    inner = pattern.removeprefix("^").removesuffix("$")
    inner = inner[1:-1] if inner.startswith("(") else inner
    return inner.split("|") if inner else []
