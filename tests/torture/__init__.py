"""A fleet of real processes over a real PostgreSQL, and what can happen to it while the flag is flipped."""
