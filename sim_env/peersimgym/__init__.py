"""The original simulator (PeersimGym): its settings, physics and measures."""
