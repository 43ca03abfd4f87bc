"""Plain values, the checks of options, and the edge: clocks, threads, the log. It imports no other room."""
