"""What local jobs share on this machine: their controller, and the GPUs."""
