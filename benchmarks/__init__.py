"""The project beside its peers: speed measured as ratios inside one run."""
