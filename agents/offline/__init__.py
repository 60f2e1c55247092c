"""Offline data with truth: logged courses of known behaviour, learning from them, and off-policy evaluation."""
