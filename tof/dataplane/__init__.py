"""One module per box of the data plane: desired state to rules, pure."""
