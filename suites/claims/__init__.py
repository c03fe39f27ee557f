"""What is said of attention, put to the test: one short seeded experiment a claim.

`results.chapters.claims.verdicts` has the claims, and what a value says of each; here are the
experiments that find the values, by the claims' ids. Claims about how cost grows need none: they
are asked of the records of kind speed in the same run.
"""
