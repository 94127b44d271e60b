"""FAuNO on Flower: nodes that learn to offload tasks and share their critics asynchronously."""
