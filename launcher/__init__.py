"""Submit each stage of an ESPnet3-style recipe as its own job, chained, and follow it.

Importing this package costs nothing: heavy libraries are imported by the functions that need them.
"""
