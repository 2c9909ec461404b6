"""What two questions differ in: one module per kind of difference, each a function of two wordings.

Figures, measures, dates and names are read once per text (`words.once`). A guard says False only where the
answer is nearly certain to be another: what it lets pass, a learned verifier reads.
"""
