"""Doors of other libraries: a module a library, imported by whoever opens it, which needs that library then."""
