"""Grids of runs, the tables made of them, and published numbers to set beside them.

`longtail.benchmark.grid` plans and runs methods x seeds; `.table` averages seeds; `.published` holds the numbers that
papers printed; `.results` writes the results page of the documentation. Only `.grid` needs torch.
"""
