"""Private names of other libraries that this package cannot do without, a module for each library, with the reasons.

They may change with any release. ``tests/strategies/test_internals.py`` names the versions that were tested, fails with
one line when a name is gone, and finds private names that stand elsewhere; ``pyproject.toml`` excludes later minor
versions. Only the module for Lightning imports Lightning.
"""
