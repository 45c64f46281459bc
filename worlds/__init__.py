"""The worlds: where the agent acts, is trained and is judged (paper sections 3.1, 4.1, 6, 10.1).

In reading order: base.py (a task, a world, an episode), api.py (one world), expert.py (who solves
every task), critique.py (what went wrong). Below base.py: tools.py, calls.py, plans.py and
negatives.py (tool calls, right and wrong), splits.py (names and wordings), faults.py (what tools
get wrong on purpose), difficulty.py. tasks.py draws tasks. catalogue/ holds the tools of
library.py; extras/ is not needed to understand the rest.

Adding a world is its file and one line here. `python -m worlds --show shell` prints a few tasks
with the expert's solution.
"""

WORLDS = {  # module in this folder: its class
    "api": "Api",
    "sql": "Sql",
    "shell": "Shell",
    "math": "Math",
    "safety": "Safety",
    "library": "Library",
}
# The setting `worlds: "all"` means these, whose words a small tokenizer holds; `library` is in
# English throughout and has to be named.
ALL_WORLDS = [name for name in WORLDS if name != "library"]
