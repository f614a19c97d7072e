"Inputs that look for untried branches, at the doors of our own code: `python tests/guided.py -runs=20000` (atheris)."
import sys
import tempfile
from pathlib import Path

import atheris
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

with atheris.instrument_imports(include=['audiolm_edu', 'mido']):
    from audiolm_edu import cards, corpus, hub, piano, tokens
    from audiolm_edu.audio import AudioError, save_audio
    from audiolm_edu.codec import Codec
    from audiolm_edu.piano import Note, write_midi

HERE = Path(tempfile.mkdtemp())


def put(name, raw): path = HERE/name; path.parent.mkdir(exist_ok=True); path.write_bytes(raw); return path


def table(name): return lambda raw: corpus.read_folder(put(f'{name.split(".")[0]}/{name}', raw).parent)


def ljspeech(raw): (HERE/'lj'/'wavs').mkdir(parents=True, exist_ok=True); (HERE/'lj'/'wavs'/'LJ001-0001.wav').touch(); put('lj/metadata.csv', raw); corpus.read_folder(HERE/'lj')


def shard(raw): put('shards/shard-00000.i16', bytes(50)); put('shards/shard-00000.json', raw); tokens.TokenStore(HERE/'shards')


def model(raw): put('model/codec.safetensors', bytes(9)); put('model/codec.json', raw); hub.load_model(Codec, HERE/'model', 'codec')


def sealed(raw): put('sealed/a.json', b'{}'); put('sealed/hashes.json', raw); hub.verify(HERE/'sealed')


def card(raw): put('card/report.json', b'{}'); put('card/a.safetensors', b'\x02'+bytes(7)+b'{}'); put('card/a.json', raw); cards.card(HERE/'card')


def report(raw): put('card/report.json', raw); put('card/a.safetensors', b'\x02'+bytes(7)+b'{}'); put('card/a.json', MODEL); cards.card(HERE/'card')


def origin(suffix): return lambda raw: cards.told_origin(put(f'origin{suffix}', raw))


TABLE = b'canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\nBach,Fugue,test,2004,a.midi,a.wav,25.0\n'
LINE = 'decoded, audiolm-edu 0.1.0, seed 1'
MODEL = b'{"model": "Codec", "config": {"width": 8}, "notes": {"history": [{"step": 5, "valid": 1.5}], "data": [{"source": "a", "licence": "b", "hours": 1, "speakers": 2, "held_out": 1}]}}'
write_midi([Note(0., .5, 60, 80), Note(.5, 1., 64, 80)], HERE/'seed.mid'); save_audio(HERE/'seed.flac', torch.zeros(99), comment=LINE)
info = PngInfo(); info.add_text('Description', LINE); Image.new('L', (1,1)).save(HERE/'seed.png', pnginfo=info)

# what each takes, and a whole example to begin with
DOORS = [(table('manifest.csv'), b'path,speaker,seconds,kind,licence\na.wav,x,1.5,speech,CC0\n'), (table('maestro-v3.csv'), TABLE), (ljspeech, b'LJ001-0001|text|spelled\n'),
         (lambda raw: piano.read_midi(put('a.mid', raw)), (HERE/'seed.mid').read_bytes()), (shard, b'{"levels": 24, "clips": [{"speaker": "a", "path": "b", "frames": 1}]}'),
         (model, MODEL), (sealed, b'{"a.json": "0"}'), (card, MODEL), (report, b'{"about": {"weights": "0"}, "figures": []}'),
         (origin('.json'), f'{{"origin": "{LINE}"}}'.encode()), (origin('.html'), f'<meta name="generator" content="{LINE}">'.encode()),
         (origin('.png'), (HERE/'seed.png').read_bytes()), (origin('.safetensors'), b'\x02'+bytes(7)+b'{}'), (origin('.flac'), (HERE/'seed.flac').read_bytes())]


def one(raw):
    "The first byte chooses the door."
    if not raw: return
    try: DOORS[raw[0]%len(DOORS)][0](raw[1:])
    except (AudioError, hub.ModelError) as e: assert '\n' not in str(e), e


if __name__=='__main__':
    (HERE/'seeds').mkdir()
    for i,(_,seed) in enumerate(DOORS): (HERE/'seeds'/str(i)).write_bytes(bytes([i])+seed)
    atheris.Setup([*sys.argv, '-max_len=4000', str(HERE/'seeds')], one); atheris.Fuzz()
