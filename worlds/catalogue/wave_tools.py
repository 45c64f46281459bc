"""Functions of `wave` as tools: how long and how large recordings are."""

import io
import wave
from random import Random
from typing import Literal

from worlds.catalogue.entries import asked_for
from worlds.catalogue.values import Kind, decimal, made_by, named, write_number

SAMPLE_RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)
SAMPLE_BYTES = 2  # of a sample


def draw_frames(rng: Random) -> int:
    return rng.randint(2, 900) * 1000 + rng.choice((0, 0, 250, 500))


def checked_rate(rate: int) -> int:
    if not 1 <= rate <= 10**6:
        raise ValueError("rate must be from 1 to 1000000")
    return rate


SAMPLE_RATE = made_by(lambda rng: rng.choice(SAMPLE_RATES), write_number)
PLAYED = decimal(1, 400, 1)


@asked_for(
    "the length of a recording of {frames} frames at {rate} Hz",
    """
    A sound file has {frames} frames at {rate} per second. How long does it play?
    {frames} samples, {rate} Hz: how many seconds of sound is that?
    How long will I listen to a clip of {frames} frames, sampled at {rate} Hz?
    The bird call is stored as {frames} samples, {rate} each second. Give its duration.
    My recorder stopped after {frames} frames. At {rate} Hz, how much time had passed?
    Work out the playing time of {frames} frames at {rate} frames a second.
    The jingle must stay under ten seconds. It has {frames} frames and runs at {rate} Hz; it takes?
    + If the number of audio frames is {frames} and {rate} go by per second, how long is the piece?
    """,
    frames=Kind(
        "integer", draw_frames, write_number, lambda value: 1000 <= value <= 10**8, "frames"
    ),
    rate=SAMPLE_RATE,
)
def playing_time(frames: int, rate: int) -> float:
    """How many seconds a recording lasts.

    frames: how many samples it has
    rate: samples in a second
    """
    if frames < 0:
        raise ValueError("frames must not be negative")
    return round(frames / checked_rate(rate), 3)


@asked_for(
    "the number of frames in {seconds} seconds at {rate} Hz",
    """
    I want to record {seconds} seconds at {rate} Hz. How many frames will there be?
    How many samples make up {seconds} s of speech at {rate} a second?
    + A tone should last as many seconds as {seconds}, at {rate} Hz. Of how many samples is it made?
    To mute the first {seconds} seconds of a track at {rate} Hz, how many frames do I blank?
    Count the frames of {seconds} seconds of audio, with {rate} in each second.
    The singer holds the note for {seconds} s, sampled at {rate} Hz. Number of samples?
    My player wants a jump in frames, not in time: forward {seconds} seconds, rate {rate}.
    + At {rate} Hz, how many frames go by while the clock runs for {seconds}, in seconds?
    """,
    seconds=PLAYED,
    rate=SAMPLE_RATE,
)
def frames_of(seconds: float, rate: int) -> int:
    """How many samples a recording of some length has.

    seconds: its length
    rate: samples in a second
    """
    if not 0 <= seconds <= 10**6:
        raise ValueError("seconds must be from 0 to 1000000")
    return round(seconds * checked_rate(rate))


@asked_for(
    "the size of {seconds} seconds in {channels} at {rate} Hz",
    """
    How many bytes does a WAV file of {seconds} seconds take in {channels} at {rate} Hz?
    I recorded {seconds} s in {channels}, {rate} Hz, 16 bit. How large is the file?
    Will it fit on the card? It is {seconds} seconds of {channels} sound at {rate} Hz.
    What space on disk does a {channels} take of {seconds} s need at {rate} samples a second?
    Before I mail it: {seconds} seconds, {channels}, {rate} Hz. How big is the attachment?
    Work out the bytes for {seconds} s of uncompressed {channels} audio at {rate} Hz.
    A {channels} interview lasts {seconds} seconds. Saved as WAV at {rate} Hz, it weighs?
    Storage for {seconds} seconds of 16 bit {channels}, {rate} Hz, header included, please.
    """,
    seconds=PLAYED,
    rate=SAMPLE_RATE,
    channels=named({1: "mono", 2: "stereo"}),
)
def wave_file_size(seconds: float, rate: int, channels: Literal[1, 2]) -> int:
    """How many bytes a 16 bit WAV file has.

    seconds: its length
    rate: samples in a second
    channels: 1 for mono, 2 for stereo
    """
    data = frames_of(seconds, rate) * channels * SAMPLE_BYTES
    file = io.BytesIO()
    with wave.open(file, "wb") as header:
        header.setparams((channels, SAMPLE_BYTES, rate, 0, "NONE", "not compressed"))
        header.writeframes(b"")
    return len(file.getvalue()) + data
