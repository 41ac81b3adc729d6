"""What fresh processes run."""
