"""A table of faults: what requests get while each of them lasts, and when the truth is seen again."""
