"""The benches: what the data path costs, and how fast it learns."""
