"""How long a waiting thread spins before it sleeps: `import support.openmp` stands before `import
torch`, which reads this when it loads.

A step of a tiny model is some hundred operations of a few microseconds each, and behind every one
the threads wait for one another. Threads that sleep at once (OMP_WAIT_POLICY=PASSIVE) lose more
time waking up than the second core brings; threads that spin as long as GNU's default are ten times
slower where another process needs the core. A thousand rounds, some microseconds, are long enough
for the one and short enough for the other (docs/LOG.md).
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # OpenMP libraries that know no spin count
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
