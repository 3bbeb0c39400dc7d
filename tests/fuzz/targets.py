"""All targets."""

from tests.fuzz import bodies, headers, names, shells, statuses

TARGETS = [target for module in (bodies, headers, names, shells, statuses) for target in module.TARGETS]
