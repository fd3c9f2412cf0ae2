"""Makes the tables of `jointgen compare`: runs beside each other and beside published figures.

Only `drawings` imports torch. The way from runs to a file: `runs` reads them, `data_sets` keeps runs of different data
apart, `columns` chooses the figures, `rows` finds the seeds of one model, `table` makes the cells, `formats` writes.
"""
