"""All targets."""

from tests.fuzz import bodies, headers, ini_files, names, shells, statuses

TARGETS = [target for module in (bodies, headers, ini_files, names, shells, statuses) for target in module.TARGETS]
