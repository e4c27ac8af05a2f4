"""Where a stage's process runs: one file per container runtime, ``none`` among them."""
