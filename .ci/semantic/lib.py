import os,sys,json,math,time
sys.path.insert(0,'.')
import numpy as np, torch, torch.nn.functional as F
torch.set_num_threads(1)
from audiolm_edu.all import *
from audiolm_edu.semantic import *
IDX=json.load(open('work/mels.json'))
MEL=torch.from_numpy(np.memmap('work/mels.f16',dtype=np.float16,mode='r').reshape(-1,64)) if True else None
SP=sorted({r['speaker'] for r in IDX})
for i,r in enumerate(IDX):
    r['spk']=r['speaker'] if r['speaker']!='barista' and 'barista' not in r['path'] else f'barista{i}'
    r['rel']=r['path'].split('/data/speech/')[-1]
HELD=[i for i,r in enumerate(IDX) if r['held']]; TRAIN=[i for i,r in enumerate(IDX) if not r['held']]
def mel(i): r=IDX[i]; return MEL[r['start']:r['start']+r['n']].float()
def held_dict(fn):
    "fn: (1,T,64) mel -> (T',D)"
    import csv
    paths={r['path'] for r in csv.DictReader(open('.ci/abx/phones.csv'))}
    return {IDX[i]['rel']:fn(mel(i)[None]) for i in HELD if IDX[i]['rel'] in paths}
@torch.no_grad()
def layer_feats(enc, m, layer): return enc(m)[layer-1][0]
