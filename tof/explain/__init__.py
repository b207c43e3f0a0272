"""``tof explain``: which tunnel, UE, service and application a packet meets, or the named reason why it passes."""
