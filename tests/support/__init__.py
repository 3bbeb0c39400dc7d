"""What the tests and the demo stand on: a private broker, a stand-in for PyBit's web, test cases."""
