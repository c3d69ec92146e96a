"""Is it flat? Four things that should cost a running system nothing, each beside the same system without it.

`python -m benchmarks.flat CASE... --out FILE` runs cases of `cases`, each on systems of its own (`rig`):
one with the burden and one without, loaded in turns, so that what the machine does meanwhile befalls
both. What comes out is the ratio of the two (`report`), and the figures that it is made of.
"""
