"""Virtual Infrastructure Managers: what starts ME Apps. One protocol, one module for each kind."""
