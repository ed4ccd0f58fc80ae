"""The HTTP interface of the service; what the service does is in `serving`."""
