"""Agents that learn: networks, PPO, DDQN, compiled rollouts."""
