"""Deciders: baselines, planners and learned policies. They read charts and give orders; a world's insides stay hidden.

Importing this package imports no torch: ask for the module you need.
"""
