"""Checks of an alignment: python quality.py SPEECH_FOLDER PHONES.csv > report.txt (needs what align.py needs)"""
import csv, sys
from collections import Counter, defaultdict
from pathlib import Path
import numpy as np
from pocketsphinx import Decoder, get_model_path
from align import audio, pcm16, RATE
V = set('AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW'.split())
SIB, NAS, STOP = {'S','SH','Z'}, {'M','N','NG'}, set('P T K'.split())

def auc(a, b):
    from scipy.stats import mannwhitneyu
    return mannwhitneyu(a, b).statistic/len(a)/len(b)

def main(folder, table):
    out = Path(table)
    rows, clips = defaultdict(list), list(csv.DictReader(open(out.with_suffix('.clips.csv'))))
    for r in csv.DictReader(open(table)): rows[r['path']].append((float(r['start']), float(r['end']), r['phone'], r['word'], r['speaker']))
    every = [r for v in rows.values() for r in v]
    phones = [r for r in every if r[2]!='SIL']
    dur = np.array([b-a for a,b,*_ in phones])
    print(f"clips considered {len(clips)}, aligned {len(rows)}; speakers {len({r[4] for r in every})}; phones {len(phones)}; kinds {len({r[2] for r in phones})}")
    print('results:', dict(Counter(c['result'].split(':')[0] for c in clips)))
    print('words in no dictionary:', '; '.join(c['result'].split(': ')[1] for c in clips if ': ' in c['result'] and 'failed' not in c['result']))
    print(f"phone length: median {np.median(dur)*1000:.0f} ms, at the 30 ms floor {np.mean(dur<.0305):.3f}, over 300 ms {np.mean(dur>.3):.4f}, over 500 ms {np.mean(dur>.5):.4f}; vowels' median {np.median([b-a for a,b,p,*_ in phones if p in V])*1000:.0f} ms")
    folders = sorted({p.split('/')[0] for p in rows})
    loop = Decoder(lm=None, allphone=str(Path(get_model_path())/'en-us'/'en-us-phone.lm.bin'), cmn='batch', lw=2., beam=1e-20, pbeam=1e-20, loglevel='FATAL')
    hf, shifts, dips, agree = defaultdict(list), range(-40, 41, 10), defaultdict(list), defaultdict(list)
    shifted, flux = defaultdict(list), defaultdict(list)
    clipagree = {}
    for path, rr in rows.items():
        f = path.split('/')[0]; x = audio(Path(folder)/path)
        n, hop = 256, 80
        S = np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(np.pad(x, n//2), n)[::hop]*np.hanning(n)))**2+1e-9
        fr = np.fft.rfftfreq(n, 1/RATE)
        lo, hi = (4000, 8000) if f=='librispeech' else (2500, 5500)
        band = (S[:, (fr>=lo)&(fr<hi)].sum(1)/S[:, fr<(8000 if f=='librispeech' else 5500)].sum(1))
        en = 10*np.log10(S.sum(1)+1e-6)
        L = np.log(S[:, :88]+1e-5); d = np.zeros(len(S)); d[2:-2] = np.abs(L[4:]-L[:-4]).mean(1)
        t = np.arange(len(S))*hop/RATE
        for i,(a,b,p,w,s) in enumerate(rr):
            for sh in shifts:
                m = (t>=a+sh/1000)&(t<b+sh/1000)
                if p in SIB: shifted[f,sh,'s'] += list(band[m])
                if p in V: shifted[f,sh,'v'] += list(band[m])
                if i and p!='SIL' and rr[i-1][2]!='SIL': flux[f,sh].append(np.interp(a+sh/1000, t, d))
            if p in V and 0<i<len(rr)-1:
                me = en[(t>=a)&(t<b)].mean()
                for a2,b2,p2,*_ in (rr[i-1], rr[i+1]):
                    if p2!='SIL' and p2 not in V: dips[f].append(me>en[(t>=a2)&(t<b2)].mean())
            if p in STOP and 0<i<len(rr)-1 and rr[i+1][2] in V: dips[f+' closure'].append(en[(t>=a)&(t<b)].min()<en[(t>=rr[i+1][0])&(t<rr[i+1][1])].mean()-10)
        loop.start_utt(); loop.process_raw(pcm16(x), full_utt=True); loop.end_utt()
        T = int(len(x)/RATE*100); free = np.full(T+50, 'SIL', dtype=object); mine = free.copy()
        for g in loop.seg(): free[g.start_frame:g.end_frame+1] = g.word if g.word[0]!='+' else 'SIL'
        for a,b,p,*_ in rr: mine[round((a-.0078)*100):round((b-.0078)*100)] = p
        k = (mine!='SIL')[:T]; m, g = mine[:T][k], free[:T][k]
        sh = np.random.default_rng(0).permutation(g)
        cls = lambda z: np.array(['v' if q in V else 's' if q in SIB|{'ZH','CH','JH','F','TH'} else 'n' if q in NAS else 'c' if q in {'P','T','K','B','D','G'} else q for q in z])
        agree[f].append((np.mean(m==g), np.mean(m==sh), np.mean(cls(m)==cls(g)), np.mean(cls(m)==cls(sh)), len(m)))
        clipagree[path] = np.mean(m==g)
    for f in folders:
        print(f'\n{f}: {sum(p.startswith(f+"/") for p in rows)} clips')
        print('  high-band share of energy, S/SH/Z frames v vowel frames, AUC by shift of the times (ms):', {sh: round(float(auc(shifted[f,sh,"s"], shifted[f,sh,"v"])), 3) for sh in shifts})
        print('  mean spectral change at phone boundaries by shift (ms):', {sh: round(float(np.mean(flux[f,sh])), 3) for sh in shifts})
        print(f"  vowel louder than its neighbouring consonant: {np.mean(dips[f]):.3f} of {len(dips[f])}; P T K before a vowel dip 10 dB under it: {np.mean(dips[f+' closure']):.3f}")
        A = np.array(agree[f]); w = A[:,4]/A[:,4].sum(); z = (A*w[:,None]).sum(0)
        print(f"  frames where the free phone loop says the same phone: {z[0]:.3f} (shuffled {z[1]:.3f}); the same broad class: {z[2]:.3f} (shuffled {z[3]:.3f})")
    worst = sorted(clipagree.items(), key=lambda q: q[1])
    v = np.array(list(clipagree.values())); print('\nclips by agreement with the free loop: under 0.2', int((v<.2).sum()), 'under 0.3', int((v<.3).sum()), 'of', len(v))
    print('lowest agreement with the free loop:', ', '.join(f'{p} {v:.2f}' for p,v in worst[:10]))
    print('\nspeaker  summary: clips, seconds of clips, minutes of phones, phones, phones a second, share at the 30 ms floor, free-loop agreement, whisper log-probability')
    sec = {c['path']: c for c in clips}
    for s in sorted({r[4] for r in every}, key=lambda s: (-sum(r[4]==s for r in every), s)):
        mine = [p for p in rows if rows[p][0][4]==s]; ph = [r for p in mine for r in rows[p] if r[2]!='SIL']
        print(f"  {s:8s} {len(mine):3d} {sum(float(sec[p]['seconds']) for p in mine):7.1f} s {sum(b-a for a,b,*_ in ph)/60:6.2f} min {len(ph):6d} {len(ph)/sum(b-a for a,b,*_ in ph):5.1f}/s {np.mean([b-a<.0305 for a,b,*_ in ph]):.3f} {np.mean([clipagree[p] for p in mine]):.3f}  {sec[mine[0]]['whisper_logprob']}")
    lp = [float(c['whisper_logprob']) for c in clips if c['whisper_logprob'] and c['result'].startswith('aligned')]
    if lp: print(f'\nWhisper mean log-probability over {len(lp)} aligned clips: {np.mean(lp):.3f} (lowest {min(lp):.3f}); over all {np.mean([float(c["whisper_logprob"]) for c in clips if c["whisper_logprob"]]):.3f}')
    print('phones:', ' '.join(f'{p}:{n}' for p,n in Counter(r[2] for r in phones).most_common()))
main(*sys.argv[1:])
