"""The catalogue: functions of Python's standard library as tools, and how people ask for them.

One file per module of the library (calendar_tools.py holds those of `calendar`). Each function has
a docstring with a line for every argument, hints from which its schema is made, requests in at
least eight wordings, and a kind of values for each argument (values.py). A function raises
ValueError where an argument makes no sense; what it says is what the agent reads.
"""
