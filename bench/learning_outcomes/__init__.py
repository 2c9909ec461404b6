"""What verdicts on hits tell: does the live false-hit rate's interval hold, and where does the threshold go?

`python -m bench.learning_outcomes --help`; docs/learning.md says how to read the figures.
"""
