"""Processes of this machine: who they are, short ones, those with a terminal, and Ctrl-C."""
