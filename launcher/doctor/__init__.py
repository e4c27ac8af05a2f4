"""Whether this machine and its cluster can launch: ``python -m launcher doctor``.

One module for each topic. A check returns findings and changes nothing.
"""
