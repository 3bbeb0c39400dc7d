"""Cases made at random for what strangers and users write: ``python -m tests.fuzz``; a few in every test run.

A target is what a case is made of, and what must be true of it. It runs in the process that tests.
"""
