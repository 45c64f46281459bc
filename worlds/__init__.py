"""The worlds: where the agent acts, is trained and is judged (paper sections 3.1, 4.1, 6, 10.1).

Adding a world is its file and one line here; worlds/base.py says what a world must do.

    python -m worlds --show shell       a few tasks with the expert's solution
"""

WORLDS = {  # module in this folder -> its class
    "api": "Api",
    "sql": "Sql",
    "shell": "Shell",
    "math": "Math",
    "safety": "Safety",
}
