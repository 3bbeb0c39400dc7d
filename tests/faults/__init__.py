"""The fault harness: real clients and brokers, faults by a schedule, and a ledger of what became of every job.

``docs/faults.rst`` says what it promises; ``python -m tests.faults --help`` how it is run.
"""
