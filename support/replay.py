"""The expert's episodes beside preferences and rewards, so that acting is not forgotten
(InstructGPT's PPO-ptx): rows of them, and their loss.

    replay = teacher_rows(stage, "ppo replay")      None where the stage replays nothing
    loss = loss + c.replay * replay_loss(stage, replay)
"""

from torch import Tensor

from fast.shared_pasts import SharedPasts
from losses import IGNORE, token_log_probs
from model import SAGE
from support import ranks
from support.packing import PackedLoader
from support.training_run import TrainingRun
from worlds.difficulty import Difficulty
from worlds.expert import trajectory
from worlds.tasks import Tasks, world_names


def taught_log_probs(
    model: SAGE,
    tokens: Tensor,
    targets: Tensor,
    documents: Tensor,
    shared: SharedPasts | None = None,
) -> Tensor:
    """log P of each target (R, T) in packed rows, 0 where nothing is taught."""
    hidden = model.hidden(tokens, documents, shared=shared)  # (R, T, D)
    log_probs, _ = token_log_probs(hidden, model.unembedding, targets)
    return log_probs


def teacher_rows(stage: TrainingRun, purpose: str) -> PackedLoader | None:
    """The teacher's episodes to replay as packed rows, `replay_rows` at a time; None for no replay.

    Their `purpose` is one of their own, so no task is both rewarded and recited.
    """
    c = stage.section
    if not c.replay_rows:
        return None
    tasks = Tasks(purpose, c.seed, world_names(c.worlds), Difficulty.of(c, style=stage.style))
    episodes = [trajectory(*tasks.arguments(i), negatives=False) for i in range(c.trajectories)]
    examples = [
        stage.tokenizer.encode_chat(episode.messages, episode.tools, stage.style)
        for episode in episodes
        if episode.verified
    ]
    short = sum(len(tokens) <= c.sequence for tokens, _ in examples)
    stage.log.say(
        f"replay  {short:,} of the expert's {c.trajectories:,} episodes fit in {c.sequence} tokens"
    )
    replay = PackedLoader(examples, c.sequence, c.replay_rows, c.seed, stage.model.config)
    replay.restore(stage.kept.get("replay") or replay.state())
    return replay


def replay_loss(stage: TrainingRun, replay: PackedLoader) -> Tensor:
    """Mean cross-entropy of the next replayed rows, in nats per taught token: the sum over this
    rank's rows, divided by the count over all ranks' rows.
    """
    tokens, targets, _, documents = (part.to(stage.device) for part in replay.next())
    count = (targets != IGNORE).sum()
    mine, counted = ranks.share_rows(len(tokens))
    with stage.autocast:
        log_probs = taught_log_probs(stage.model, tokens[mine], targets[mine], documents[mine])
    return -log_probs.sum() / count * counted
