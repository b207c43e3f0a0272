"""The UE-decapsulated data plane: desired state to OpenFlow rules, one pure module per box."""
