"""The federation: messages, local training, the run on the server, its members."""
