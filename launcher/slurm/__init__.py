"""What the launcher knows of SLURM: its commands, its options, its script, and how its jobs end."""
