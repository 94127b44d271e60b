"""What the nodes learn: to offload tasks, or an environment of gymnasium."""
