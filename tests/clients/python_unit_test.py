"""Runs the tests of clients/python; 77 where what it depends on is missing."""

import os
import sys
import unittest

sys.dont_write_bytecode = True
try:
    import lancet  # noqa: F401
except ImportError as missing:
    print(f"skipped: {missing}; scripts/setup.sh --clients installs it")
    sys.exit(77)

TESTS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "clients", "python", "tests")
suite = unittest.defaultTestLoader.discover(TESTS)
sys.exit(not unittest.TextTestRunner().run(suite).wasSuccessful())
