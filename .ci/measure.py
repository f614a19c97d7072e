"""Held-out figures of the weights in the package:  python measure.py FOLDER

FOLDER is read by `read_folder`; only speakers for which `held_out` is true are used. The codec's part is
`python -m audiolm_edu.bench codec FOLDER`. Needs, in a checkout:
pip install -e '.[bench]' && pip install --no-deps resemblyzer webrtcvad-wheels 'setuptools<81'
"""
import sys

import numpy as np
import torch
from resemblyzer import VoiceEncoder

from audiolm_edu import bench
from audiolm_edu.all import *


def one_each(clips, seconds, limit):
    "The first long enough clip of each held-out speaker."
    found = {}
    for c in clips:
        if held_out(c.speaker) and c.seconds > seconds: found.setdefault(c.speaker, c)
    return list(found.values())[:limit]


def voice_kept(prompts, sounds):
    "Share of pairs in which a sound is closer to its own prompt than another speaker's sound is."
    near = np.array(prompts)@np.array(sounds).T; off = ~np.eye(len(near), dtype=bool)
    return float((near.diagonal()[:,None] > near)[off].mean())


def main(folder):
    torch.set_num_threads(1)
    lm, clips = AudioLM.from_pretrained('speech'), read_folder(folder)
    print(bench.report(bench.codec_bench(lm.codec, bench.chosen_clips(folder))), flush=True)
    voice, some = VoiceEncoder('cpu', verbose=False), one_each(clips, 5, 16)
    embed = lambda x: voice.embed_utterance(x.numpy())
    prompts = [c.audio()[:3*SR] for c in some]; own = [embed(x) for x in prompts]
    new = [embed(lm.continue_from(x, 4, seed=1).audio[3*SR:]) for x in prompts]
    real = [embed(lm.codec.roundtrip(c.audio()[3*SR:])) for c in some]
    print(f'voice kept, {len(some)} speakers: continuation {voice_kept(own, new):.3f}, real {voice_kept(own, real):.3f}')


if __name__=='__main__': main(sys.argv[1])
