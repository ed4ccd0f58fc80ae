"""The network and how it is trained, in torch."""
