"""Virtual Infrastructure Managers: what they do, how long it takes them."""
