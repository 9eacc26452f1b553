"""Grids of runs, the tables made of them, and published numbers to set beside them.

`.grid` plans methods x seeds, `.execution` runs them, in turn or side by side (`.pool`, `.cluster`); `.table` averages
seeds. `.published` holds the numbers that papers printed, `.reproduction` plans the runs behind them and compares,
`.render` writes that down. `.estimate` and `.cost` measure how long runs take; `.collect` and `.results` make the
results page of the documentation.
"""
