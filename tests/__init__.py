"""The tests of rbit: real broker, real processes, a real HTTP server, the real command."""
