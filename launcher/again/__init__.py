"""A launch that goes on from an earlier one: resumed, or reproduced from its record."""
