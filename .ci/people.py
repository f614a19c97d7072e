"People that no model is trained on, with their phones (abx/phones.csv): ABX on them, for the scripts beside this one."
from pathlib import Path

import torch

from audiolm_edu.all import *

PHONES = Path(__file__).parent/'abx'/'phones.csv'


def rows_of(store, phones):
    "Number of each recording's clip in `store`, by the table's path; None if a recording lacks."
    at = {'/'.join(c.path.parts[-n:]): i for i,c in enumerate(store.clips) for n in (1,2,3,4)}
    paths = dict.fromkeys(p.path for p in phones)
    return {p: at[p] for p in paths} if all(p in at for p in paths) else None


def phones_of(store):
    "(sounds by path, phones) of the table; None if `store` lacks any of them."
    phones = read_phones(PHONES); rows = rows_of(store, phones)
    return rows and ({p: store[i] for p,i in rows.items()}, phones)


@torch.no_grad()
def abx_of(people, features, most=10):
    "ABX, in percent, of `features`: (1,S) -> (1,T,D), or a dict of (T,D) by path."
    sounds, phones = people
    vectors = features if isinstance(features, dict) else {p: features(x[None])[0] for p,x in sounds.items()}
    r = abx(vectors, phones, most=most)
    return {k: round(100*r[k], 1) for k in ('within','across')}
