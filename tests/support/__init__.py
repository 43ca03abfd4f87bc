"""What the tests stand on: a real PostgreSQL, real servers, and a network that can be broken."""
