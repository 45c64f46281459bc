"""Functions of `graphlib` as tools: jobs of which some have to wait for others."""

import graphlib
from itertools import pairwise
from random import Random

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import made_by, write_list

JOBS = "shopping baking ironing laundry cooking painting packing sewing plumbing".split()
BEFORE_WORD = " before "


def draw_job_chain(rng: Random) -> list[str]:
    """Rules that leave one order only."""
    jobs = rng.sample(JOBS, rng.randint(3, 5))
    rules = [f"{job}{BEFORE_WORD}{other}" for job, other in pairwise(jobs)]
    rng.shuffle(rules)
    return rules


def draw_job_rules(rng: Random) -> list[str]:
    """Rules for five jobs, of which some may be done side by side."""
    jobs = rng.sample(JOBS, 5)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    return [f"{jobs[i]}{BEFORE_WORD}{jobs[j]}" for i, j in rng.sample(pairs, rng.randint(3, 5))]


def job_sorter(rules: list[str]) -> graphlib.TopologicalSorter:
    """A sorter of the jobs that rules speak of."""
    sorter: graphlib.TopologicalSorter = graphlib.TopologicalSorter()
    for rule in rules[:200]:
        job, before, other = rule.partition(BEFORE_WORD)
        if not (job and before and other):
            raise ValueError('a rule reads "cooking before eating"')
        sorter.add(other, job)
    try:
        sorter.prepare()
    except graphlib.CycleError:
        raise ValueError("the rules go round in a circle") from None
    return sorter


JOB_RULES = made_by(draw_job_rules, write_list)
JOB = made_by(lambda rng: rng.choice(JOBS))


@asked_for(
    "the right order of jobs under the rules {rules}",
    """
    It has to be {rules}. In which order do I do it all?
    Plan my Saturday: {rules}.
    The notes say {rules}. Put the jobs into one list, first to last.
    Given {rules}, what is the right sequence?
    My landlord insists on {rules}. Write me a schedule that respects this.
    Line up everything so that these hold: {rules}.
    I keep mixing things up. If {rules}, what comes first, what next and so on?
    Sort the chores with {rules} in mind.
    """,
    rules=made_by(draw_job_chain, write_list),
)
def order_of_jobs(rules: list[str]) -> list[str]:
    """All jobs in an order that obeys the rules; by the alphabet where they leave a choice.

    rules: such as "cooking before eating"
    """
    sorter = job_sorter(rules)
    waiting: list[str] = []
    order: list[str] = []
    while sorter.is_active():
        waiting = sorted([*waiting, *sorter.get_ready()])
        order.append(waiting.pop(0))
        sorter.done(order[-1])
    return order


@asked_for(
    "the jobs that {job} waits for under the rules {rules}",
    """
    The rules are {rules}. What must be finished before {job} can begin?
    I am waiting for {job} to start. With {rules}, which jobs hold it up?
    On what does {job} depend, directly or not, if {rules}?
    We agreed on {rules}. List all that precedes {job}.
    What do I need to get out of the way for {job}? It is {rules}.
    Given {rules}, name everything that {job} has to wait for.
    If {rules}, which work comes earlier than {job}?
    {job} is all I want to do today, but {rules}. What else am I in for?
    """,
    rules=JOB_RULES,
    job=JOB,
)
def needed_before(rules: list[str], job: str) -> list[str]:
    """The jobs that have to be done before a certain one, by the alphabet.

    rules: such as "cooking before eating"
    job: the one that waits
    """
    job_sorter(rules)
    pairs = [rule.split(BEFORE_WORD, 1) for rule in rules[:200]]
    found = {job}
    size = 0
    while len(found) > size:
        size = len(found)
        found |= {earlier for earlier, later in pairs if later in found}
    if size == 1:
        raise ValueError(f"nothing has to be done before {job}")
    return sorted(found - {job})


@asked_for(
    "the jobs open after {done} under the rules {rules}",
    """
    With {rules}, and {done} behind me, what can I start now?
    I have finished {done}. The rules say {rules}. Which jobs are open to me?
    The plan is {rules}. So far only {done} is done, so what may the helpers take up?
    {done} is over. What is no longer blocked, if {rules}?
    What could be begun at once? It is {rules}, and we got {done} done.
    After {done}, which work can go on side by side, given {rules}?
    Tick off {done}. Under {rules}, tell me the next possible jobs.
    Nothing but {done} has been done. Since {rules}, where can we go on?
    """,
    rules=JOB_RULES,
    done=JOB,
)
def open_jobs(rules: list[str], done: str) -> list[str]:
    """The jobs that may start once a first one is done, by the alphabet.

    rules: such as "cooking before eating"
    done: the one that is done
    """
    sorter = job_sorter(rules)
    ready = set(sorter.get_ready())
    if done not in ready:
        raise ValueError(f"{done} is not a job that could be done first")
    sorter.done(done)
    return sorted((ready | set(sorter.get_ready())) - {done})
