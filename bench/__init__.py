"""rbit measured beside others, on one machine and one private RabbitMQ; see docs/benchmarks.rst."""
