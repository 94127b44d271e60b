"""A world under a policy, recorded task by task, and its replay in a browser."""
