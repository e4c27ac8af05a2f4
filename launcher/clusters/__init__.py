"""Where jobs run: one file per cluster."""
