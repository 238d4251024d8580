"""The same flows, built with this library and with its peers."""
