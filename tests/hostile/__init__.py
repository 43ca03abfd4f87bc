"""Requests that nobody sends by accident, and whether they open what is closed.

`targets`     A grammar of request targets. One seed is one sequence.
`servers`     What each server hands over for a target.
`frameworks`  Which view each framework routes that to, and the path that the view stands for.
`paths`       Whether both adapters let through nothing but what a rule opens.
"""
