"""World models of human physiology: learned worlds and the mechanistic oracles they are judged against.

Nothing here imports gymnasium, and importing this package imports no torch: ask for the module you need.
Research software: no output of it is a clinical finding.
"""
