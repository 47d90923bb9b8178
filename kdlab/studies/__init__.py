"""Studies: many runs, statistics and a report, from one file.

A study file (`file`) becomes a plan of runs (`plan`), each in a folder named by what it computes (`ledger`), worked
through by an executor (`executor`): on one machine (`local`) or a Ray cluster (`cluster`). Results are read from the
run folders (`results`), compared (`statistics`), and written as tables and figures (`report`).
"""
