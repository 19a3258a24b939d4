"""What it takes to train the networks."""
