"""Train the weights in audiolm_edu/weights from folders of speech:  python train.py WORK OUT FOLDER [FOLDER ...] [--share F]

Every part resumes from its checkpoint in WORK, so the script can be killed and started again at any time. One thread a process:
set OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE. `--share .01` does a hundredth of the steps, to see that all of it runs.
Speakers for which `held_out` is true are only measured on. Time on one core: codec 65 min, semantic 35, stage 1 14, stage 2 40, stage 3 10.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from audiolm_edu.all import *
from audiolm_edu.codec import amplitudes

SECONDS_OF_HELD_OUT = 3.


def corpus(work, folders):
    "All folders packed once; (waveforms, training weights, held-out numbers)."
    clips = [c for f in folders for c in read_folder(f)]
    store = Waveforms(work/'packed') if (work/'packed').exists() else pack(clips, work/'packed')
    use = np.array([not held_out(c.speaker) for c in store.clips], dtype=float)
    if not 0 < use.sum() < len(use): raise SystemExit(f'{use.sum():.0f} of {len(use)} clips are of speakers to train on; some are needed on either side.')
    return store, use, np.flatnonzero(use==0)


def fit(trainer):
    "Train to the end; leave the averaged weights in the modules."
    trainer.fit()
    for name, (module, _) in trainer.players.items(): module.load_state_dict(trainer.ema[name])
    return trainer.history


def train_codec(work, store, use, unseen, steps):
    "Transform and codebooks from data, then all of it together, then the decoder alone against critics."
    codec, crops = Codec(CODEC_PRESETS['small']), Crops(store, 16, 32*640, use, gain_db=9, seed=2)
    n = int(SECONDS_OF_HELD_OUT*SR)//640*640
    x = torch.stack([store[i][:n] for i in unseen if store.lengths[i] > n][:24])
    def valid():
        A, y = amplitudes(x), codec.encode(x)
        heard = lambda q: spectral_loss(A, codec.decoder.log_amplitudes(codec.rvq.decode(y[...,:q]))).item()
        return {f'heard_{q}': heard(q) for q in (8,24)}
    start = torch.cat([crops(10**6+i) for i in range(60)])
    codec.fit_transform(start).fit_codebooks(start)
    history = fit(Trainer(SpectrumGame(codec).players, crops, work/'codec', steps(8000), lr=1e-3, warmup=100, ema=.998, valid=valid, every=250))
    few, critics = Crops(store, 8, 20*640, use, gain_db=9, seed=7), Critics(*[SpectrumDiscriminator(k) for k in (1,2)])
    late = fit(Trainer(DecoderGame(codec, critics).players, few, work/'decoder', steps(2500), lr=3e-4, warmup=50, betas=(.8,.98), ema=.99, valid=valid, every=250))
    return codec.eval(), dict(history=history+[dict(h, step=h['step']+history[-1]['step']) for h in late])


def train_semantic(work, store, use, unseen, steps):
    "Two rounds: targets are clusters of MFCC, then clusters of what round one learned."
    crops, history, targets = Crops(store, 16, 4*SR, use, gain_db=6, seed=11), [], mfcc
    book = kmeans(torch.cat([mfcc(crops(10**6+i)).flatten(0,1) for i in range(40)]), 256)
    for name, count in (('semantic-1', steps(1000)), ('semantic-2', steps(1500))):
        tokenizer = SemanticTokenizer(SEMANTIC_PRESETS['small'])
        model = MaskedPrediction(tokenizer.encoder, targets, book)
        history += fit(Trainer(dict(semantic=(model, model.loss)), crops, work/name, count, lr=1e-3, every=200))
        tokenizer.eval().fit_clusters([crops(10**6+i) for i in range(100)])
        targets, book = tokenizer.features, tokenizer.centroids.clone()
    return tokenizer, dict(history=history)


def train_stage(work, name, config, make, tokens, frames, budget, count):
    "One stage; keeps the weights with the lowest loss on held-out speakers."
    train, unseen = (tokens.only(lambda c: held_out(c['speaker'])==side) for side in (False, True))
    lm, crops = TokenLM(config), TokenCrops(train, frames, budget, seed=4)
    batches = [make([(z[:frames], y[:frames])]) for z,y in (unseen[i] for i in range(len(unseen)))]
    def valid():
        n = [(b[2]!=IGNORE).sum().item() for b in batches]
        return dict(valid=sum(lm.loss(b)[0].item()*k for b,k in zip(batches, n))/sum(n))
    t = Trainer(dict(lm=(lm, lm.loss)), lambda i: make(crops(i)), work/name, count, lr=1e-3, warmup=100, weight_decay=.05,
                valid=valid, every=100, best='valid')
    t.fit()
    lm.load_state_dict({k.removeprefix('lm/'): v for k,v in load_file(work/name/'best.safetensors').items()})
    return lm.eval(), dict(history=t.history)


def main(work:Path, out:Path, folders, share:float):
    torch.set_num_threads(1); torch.manual_seed(0)
    steps = lambda n: max(2, round(n*share))
    store, use, unseen = corpus(work, folders)
    for name, train, cls in (('codec', train_codec, Codec), ('semantic', train_semantic, SemanticTokenizer)):
        if not (out/f'{name}.json').exists():
            model, notes = train(work, store, use, unseen, steps)
            save_model(model, out, name, **notes)
    codec, semantic = load_model(Codec, out, 'codec'), load_model(SemanticTokenizer, out, 'semantic')
    tokens = tokenize_corpus(store, codec, semantic, work/'tokens')
    rate = 25*sum(len(drop_repeats(z)[0]) for z,_ in tokens)/tokens.frames.sum()
    K, N = semantic.config.clusters, codec.config.codes
    stages = [('stage1', semantic_config(K, round(float(rate), 2), dropout=.2), semantic_batch, 750, 3000, 800),
              ('stage2', coarse_config(K, N, layers=5), coarse_batch, 250, 800, 1400),
              ('stage3', fine_config(LEVELS, N, width=128, layers=4), lambda crops: fine_batch(crops, N), CHUNK, 375, 500)]
    for name, config, make, frames, budget, count in stages:
        lm, notes = train_stage(work, name, config, make, tokens, frames, budget, steps(count))
        save_model(lm, out, name, **notes)
    print(weights_hash(out), json.dumps({p.name: p.stat().st_size for p in sorted(out.glob('*.safetensors'))}))


if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('work', type=Path); p.add_argument('out', type=Path); p.add_argument('folders', nargs='+')
    p.add_argument('--share', type=float, default=1.)
    a = p.parse_args()
    main(a.work, a.out, a.folders, a.share)
