"""Faults on purpose, and whether anything was lost or doubled.

    scene.py      a cluster, workers of every stage restarted as a service manager would, a steady feed
    registry.py   every fault that there is; processes.py, brokers.py, groups.py, content.py do them
    verdict.py    what was written, held against one uninterrupted offline fold of the same records
    run.py        seeded runs of many faults; report.py  their table

`make test-faults` runs all of it; `test_faults.py` is the short set of `make test-kafka`.
"""
