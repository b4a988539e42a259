"""What a turn and the pages cost, beside the same rows by hand, an older version, a bare bot, and other projects.

`python -m tests.bench` makes databases of its own, measures, prints a table and removes the databases. Each sample is
taken in a process of its own, and samples of all that is compared alternate, so that drift of the machine hits all
alike.
"""
