"""The world as environments of gymnasium and PettingZoo, and as pictures."""
