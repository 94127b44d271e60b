"""The compiled world: state, tick, observation, reward."""
