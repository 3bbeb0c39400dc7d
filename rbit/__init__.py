"""rbit works off job queues in RabbitMQ with Python functions and shell commands.

Job code may import ``Failed`` and ``Blocked`` from here. The package itself stays light, for every
worker imports it.
"""

from rbit.errors import Blocked, Failed

__version__ = "1.0.0"

__all__ = ["Blocked", "Failed", "__version__"]
