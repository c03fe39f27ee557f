"""What a report consists of, and the page and the Markdown that hold it.

May import `figures` and the rooms below it.
"""
