"""The proof that a whole fleet follows: what a process reports, how reports are judged, and the loop that waits."""
