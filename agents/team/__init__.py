"""Deciders for a care team: three members, each from his own chart."""
