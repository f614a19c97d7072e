"""Train the weights in audiolm_edu/weights from folders of speech:  python train.py WORK OUT FOLDER [MORE ...] [--share F]

FOLDER is the language to be spoken. MORE, other languages, is heard by the codec and, a third as often, by the semantic encoder.

Every part resumes from its checkpoint in WORK, so the script can be killed and started again at any time. One thread a process:
set OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE. `--share .01` does a hundredth of the steps, to see that all of it runs.
Speakers for which `held_out` is true are only measured on. Time on one core: codec 65 min, semantic 35, stage 1 14, stage 2 40, stage 3 10.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from audiolm_edu.all import *
from audiolm_edu.codec import amplitudes
from people import abx_of, phones_of

SECONDS_OF_HELD_OUT = 3.


def corpus(work, folders):
    "All folders packed once; (waveforms, training weights, held-out numbers, which are of the first folder)."
    clips = [c for f in folders for c in read_folder(f) if c.kind=='speech']
    store = Waveforms(work/'packed') if (work/'packed').exists() else pack(clips, work/'packed')
    spoken = np.array([c.path.is_relative_to(folders[0]) for c in store.clips])
    use = np.array([not held_out(c.speaker) for c in store.clips], dtype=float)
    if not 0 < use.sum() < len(use): raise SystemExit(f'{use.sum():.0f} of {len(use)} clips are of speakers to train on; some are needed on either side.')
    return store, use, np.flatnonzero(use==0), spoken


def fit(trainer):
    "Train to the end; leave the averaged weights in the modules."
    trainer.fit()
    for name, (module, _) in trainer.players.items(): module.load_state_dict(trainer.ema[name])
    return trainer.history


def train_codec(work, store, use, unseen, spoken, steps):
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


def fit_mixture(store, rows, factor, components, iters, seed=12):
    "A mixture of cepstra of some recordings, each warped by the factor of its speaker."
    rng = np.random.default_rng(seed)
    frames = lambda i: standardised(cepstra(warp(log_mel(pad_to_token(store[i][None])), factor[store.clips[i].speaker]), slopes=2))[0]
    some = torch.cat([frames(i)[::3] for i in rng.permutation(rows)[:1300]])
    return Mixture.fit(some[torch.from_numpy(rng.permutation(len(some))[:150_000])], components, iters)


def soft_labels(work, store, use, spoken, components):
    """Labels without a voice for every clip, computed once: a mixture finds every speaker's likeliest vocal tract; a second one is
    fitted to speech brought to it; labels are its answers there, between two near tracts. Returns shares and which they are."""
    path = work/'labels.safetensors'
    if not path.exists():
        by = {}
        for i,c in enumerate(store.clips): by.setdefault(c.speaker, []).append(i)
        factor, rows = dict.fromkeys(by, 1.), np.flatnonzero(use*spoken)
        first = fit_mixture(store, rows, factor, components//2, 6)
        for speaker,own in tqdm(by.items(), desc='tracts'): factor[speaker] = likeliest_tract(first, [store[i][None,:6*SR] for i in own[:6]])
        mixture, shares, which = fit_mixture(store, rows, factor, components, 6), [], []
        for i,c in enumerate(tqdm(store.clips, desc='labels')):
            near = [factor[c.speaker]*f for f in (.955,1.045)]
            s, w = largest(speaker_free(mixture, store[i][None], tracts=near)[0]); shares.append(s); which.append(w)
        write_atomically(path, lambda p: save_file(dict(shares=torch.cat(shares), which=torch.cat(which)), p))
    return load_file(path)


def train_semantic(work, store, use, unseen, spoken, steps):
    "Masked prediction of labels without a voice, the paper's objective on the same labels, then k-means on one layer."
    N = max(32, steps(512))
    labels, tokenizer, people = soft_labels(work, store, use, spoken, N), SemanticTokenizer(SEMANTIC_PRESETS['small']), phones_of(store)
    crops = LabelledCrops(store, labels['shares'], labels['which'], N, weights=use*np.where(spoken, 1, .35), seed=11)
    figures = lambda: abx_of(people, lambda x: tokenizer.layers(x)[tokenizer.config.layer-1], most=6)
    first, second = MaskedPrediction(tokenizer.encoder, N, hidden=.5, seen=1.), W2vBert(tokenizer.encoder, N, low=6, anchor=.5)
    history = []
    for name,model,count,lr in (('labels', first, 1800, 1.5e-3), ('semantic', second, 1200, 5e-4)):
        before = history[-1]['step'] if history else 0
        t = Trainer(dict(semantic=(model, model.loss)), crops, work/name, steps(count), lr=lr, warmup=100, ema=.995, every=300,
                    valid=figures if people else None)
        history += [dict(h, step=h['step']+before) for h in fit(t)]
    rows = np.flatnonzero(use*spoken)
    tokenizer.eval().fit_clusters(store[i][None] for i in rows)
    return tokenizer, dict(history=history, handover=steps(1800), hours=f'{store.lengths[use>0].sum()/SR/3600:.1f} hours of speech, '
                           f'{store.lengths[rows].sum()/SR/3600:.1f} of them English')


def train_stage(work, name, config, make, tokens, frames, budget, steps):
    "One stage; keeps the weights with the lowest loss on held-out speakers."
    train, unseen = (tokens.only(lambda c: held_out(c['speaker'])==side) for side in (False, True))
    lm, crops = TokenLM(config), TokenCrops(train, frames, budget, seed=4)
    some = range(0, len(unseen), max(1, len(unseen)//100))              # about a hundred clips
    batches = [make([(z[:frames], y[:frames])]) for z,y in (unseen[i] for i in some)]
    count = lambda b: (b[2]!=IGNORE).sum().item()     # target tokens
    def valid():
        n = [count(b) for b in batches]
        return dict(valid=sum(lm.loss(b)[0].item()*k for b,k in zip(batches, n))/sum(n))
    t = Trainer(dict(lm=(lm, lm.loss)), lambda i: make(crops(i)), work/name, steps, lr=1e-3, warmup=100, weight_decay=.05,
                valid=valid, every=100, best='valid', count=count)
    t.fit()
    lm.load_state_dict({k.removeprefix('lm/'): v for k,v in load_file(work/name/'best.safetensors').items()})
    return lm.eval(), dict(history=t.history)


def main(work:Path, out:Path, folders, share:float):
    torch.set_num_threads(1); torch.manual_seed(0)
    steps = lambda n: max(2, round(n*share))
    store, use, unseen, spoken = corpus(work, folders)
    for name, train, cls in (('codec', train_codec, Codec), ('semantic', train_semantic, SemanticTokenizer)):
        if not (out/f'{name}.json').exists():
            model, notes = train(work, store, use, unseen, spoken, steps)
            save_model(model, out, name, **notes)
    codec, semantic = load_model(Codec, out, 'codec'), load_model(SemanticTokenizer, out, 'semantic')
    tokens = tokenize_corpus(store, codec, semantic, work/'tokens')
    own = tokens.only(lambda c: Path(c['path']).is_relative_to(folders[0]))
    rate = 25*sum(len(drop_repeats(z)[0]) for z,_ in own)/own.frames.sum()
    K, N = semantic.config.clusters, codec.config.codes
    stages = [('stage1', own, semantic_config(K, round(float(rate), 2), dropout=.2), semantic_batch, 750, 3000, 800),
              ('stage2', tokens, coarse_config(K, N, layers=5), coarse_batch, 250, 800, 1400),
              ('stage3', tokens, fine_config(LEVELS, N, width=128, layers=4), lambda crops: fine_batch(crops, N), CHUNK, 375, 500)]
    for name, heard, config, make, frames, budget, count in stages:
        lm, notes = train_stage(work, name, config, make, heard, frames, budget, steps(count))
        save_model(lm, out, name, **notes)
    print(weights_hash(out), json.dumps({p.name: p.stat().st_size for p in sorted(out.glob('*.safetensors'))}))


if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument('work', type=Path); p.add_argument('out', type=Path); p.add_argument('folders', nargs='+')
    p.add_argument('--share', type=float, default=1.)
    a = p.parse_args()
    main(a.work, a.out, a.folders, a.share)
