"""A process's own copy of the flag, and the thread that keeps it fresh."""
