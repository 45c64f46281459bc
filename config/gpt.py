"""The baseline to hold the toy against: a GPT-style decoder of as many parameters, through the same
train.py.

python train.py config/gpt.py
"""

from config import Data, Model, Train

out = "out/gpt/base"

model = Model(
    vocab_size=1024,
    width=128,
    layers=4,
    heads=4,
    kv_heads=4,  # every query head its own keys
    head_dim=32,
    feed_forward=648,  # chosen so that the parameters agree with the toy's within 0.2%
    context=1024,
    embedding="plain",
    activation="gelu",
    norm="layer",
    previous_token=False,
)
data = Data(sequence=256)
train = Train(steps=1200, batch=8, minutes=4.4, optimizer="adamw")
