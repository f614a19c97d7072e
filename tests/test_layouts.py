"Corpora as they are unpacked: who counts as a speaker, what was said, and that `train` takes them."
import json
from dataclasses import replace

import pytest
import torch

from audiolm_edu import cli
from audiolm_edu.audio import SR, AudioError, save_audio
from audiolm_edu.corpus import Waveforms, each_its_own, clips, held_out, maestro, pack, read_folder, unseen
from audiolm_edu.piano import Note, write_midi
from audiolm_edu.recipes import Job

VOICES = [c.audio()[:4*SR] for c in clips('speech')[:6]]


def put(path, x, sr=SR): path.parent.mkdir(parents=True, exist_ok=True); return save_audio(path, x, sr)


def librispeech(root):
    for i,(who,chapter) in enumerate([('84','121123'), ('84','121550'), ('251','118436'), ('251','136532'), ('422','122949'), ('652','129742')]):
        name = f'{who}-{chapter}'; part = 'train-clean-100' if i < 4 else 'dev-clean'
        put(root/'LibriSpeech'/part/who/chapter/f'{name}-0000.flac', VOICES[i])
        (root/'LibriSpeech'/part/who/chapter/f'{name}.trans.txt').write_text(f'{name}-0000 GO DO YOU HEAR {i}\n')
    (root/'LibriSpeech'/'README.TXT').write_text('...')
    return root/'LibriSpeech'


def ljspeech(root):
    names = [f'LJ{c:03d}-{i:04d}' for c in (1,2,3) for i in (1,2)]
    for n,x in zip(names, VOICES): put(root/'LJSpeech-1.1'/'wavs'/f'{n}.wav', torch.nn.functional.interpolate(x[None,None], scale_factor=22050/SR)[0,0], 22050)
    (root/'LJSpeech-1.1'/'metadata.csv').write_text(''.join(f'{n}|"Printing" in {i}|Printing, in number {i}\n' for i,n in enumerate(names)))
    return root


def heap(root):
    for i,x in enumerate(VOICES): put(root/f'memo {i}.ogg', x)
    return root


def test_librispeech(tmp_path):
    found = read_folder(librispeech(tmp_path))
    assert [c.speaker for c in found]==['ls422','ls652','ls251','ls251','ls84','ls84'] and {c.licence for c in found}=={'CC BY 4.0'}
    assert found[-1].text=='GO DO YOU HEAR 1' and abs(found[0].seconds-4) < .01
    assert [c.speaker for c in read_folder(tmp_path/'LibriSpeech'/'train-clean-100'/'84')]==['ls84','ls84']   # from any folder above


def test_ljspeech(tmp_path):
    for root in (ljspeech(tmp_path), tmp_path/'LJSpeech-1.1'):
        found = read_folder(root)
        assert [c.speaker for c in found]==['LJ001']*2+['LJ002']*2+['LJ003']*2 and found[3].text=='Printing, in number 3' and found[0].licence=='public domain'
    (tmp_path/'LJSpeech-1.1'/'wavs'/'LJ001-0001.wav').unlink(); assert len(read_folder(tmp_path))==5
    (tmp_path/'LJSpeech-1.1'/'metadata.csv').write_text('file_name,transcription\nwavs/x.wav,hi\n')      # another format of that name
    assert [(c.speaker, c.licence) for c in read_folder(tmp_path)]==[('wavs', '')]*5


def test_the_layout_of_ljspeech_with_other_recordings(tmp_path):
    for who in ('ann', 'bob'):
        put(tmp_path/who/'wavs'/f'{who}_0.wav', VOICES[0]); (tmp_path/who/'metadata.csv').write_text(f'{who}_0|hi|hi\n')
    own, = read_folder(tmp_path/'ann'); assert own.licence=='' and own.text=='hi'                          # ours to give, not ours to guess
    assert [c.speaker for c in read_folder(tmp_path)]==['ann', 'bob']                                      # two folders: nobody is left out
    (tmp_path/'ann'/'metadata.csv').write_text('x'*300+'|hi|hi\nann_0|hi|\n', encoding='utf-8-sig'); assert read_folder(tmp_path/'ann')[0].text=='hi'


def test_tables(tmp_path):
    (tmp_path/'clips.csv').write_text('path,speaker,seconds\na.wav,x,1\n', encoding='utf-8-sig'); assert read_folder(tmp_path)[0].speaker=='x'
    (tmp_path/'clips.csv').write_text('path,seconds,speaker\na.wav,1\n')
    with pytest.raises(AudioError, match='not whole'): read_folder(tmp_path)


def piano(root):
    "MAESTRO's table, sounds and performances: two takes of one piece, and another."
    rows, own = [], clips('rendered-piano')
    for i,(who,title) in enumerate([('Bach','Fugue'), ('Bach','Fugue'), ('Chopin','Etude, Op. 10')]):
        name = f'{2004+i}/MIDI-Unprocessed_{i}'; put(root/'maestro-v3.0.0'/f'{name}.wav', own[i].audio()[:12*SR])
        (root/'maestro-v3.0.0'/f'{name}.midi').parent.mkdir(exist_ok=True)
        write_midi([Note(.2*k, .2*k+.3, 48+(7*k+i)%30, 80) for k in range(60)], root/'maestro-v3.0.0'/f'{name}.midi')
        rows.append(f'{who},"{title}",{"test" if i==2 else "train"},2004,{name}.midi,{name}.wav,12.0\n')
    (root/'maestro-v3.0.0'/'maestro-v3.0.0.csv').write_text('canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\n'+''.join(rows))
    return root


def test_maestro(tmp_path):
    found = read_folder(piano(tmp_path))
    assert [c.speaker for c in found]==['Bach: Fugue']*2+['Chopin: Etude, Op. 10'] and {c.kind for c in found}=={'piano'}
    assert len(maestro(tmp_path))==3 and len(maestro(tmp_path, 'test'))==1 and read_folder(tmp_path/'maestro-v3.0.0')==found
    (tmp_path/'maestro-v3.0.0'/'maestro-v3.0.0.csv').write_text('canonical_composer,canonical_title,split,audio_filename,duration\nA,B,train,x.wav,long\n')
    with pytest.raises(AudioError, match='not whole'): read_folder(tmp_path)


def test_other_folders(tmp_path):
    for path in ('wav48/p225/p225_001.wav', 'wav48/p225/p225_002.wav', 'wav48/p226/mic1/p226_001.wav'): put(tmp_path/'vctk'/path, VOICES[0])
    assert [c.speaker for c in read_folder(tmp_path/'vctk')]==['p225','p225','p226']
    assert {c.speaker for c in read_folder(heap(tmp_path/'heap'))}=={'heap'}
    (tmp_path/'heap'/'broken.wav').write_bytes(b'RIFF'); found = read_folder(tmp_path/'heap')
    assert found[0].seconds==0 and len(pack(found, tmp_path/'p'))==len(VOICES)       # named, and left out


def test_the_name_of_a_folder_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    heap(tmp_path/'heap'); monkeypatch.chdir(tmp_path/'heap'); assert {c.speaker for c in read_folder('.')}=={'heap'}


def test_training_and_judging_agree(tmp_path):
    "What `evaluate` calls held out, `train` has not heard; also where the rule alone would take all or none."
    from audiolm_edu.report import material
    for name in ('heap', 'pile', 'stack'):
        job = Job([heap(tmp_path/name)], tmp_path/f'm {name}', 'tiny'); own, _, asked = material(tmp_path/name)
        assert {c.speaker for c in own}==job.unseen() and all(map(asked, job.unseen())) and len(own) < len(VOICES)


def test_two_sides_always():
    assert len({c.speaker for c in each_its_own([replace(c, speaker='x') for c in clips('speech')[:3]])})==3
    assert each_its_own(clips('speech'))==clips('speech')
    for n in range(2, 40):
        names = [f's{i}' for i in range(n)]; out = unseen(names)
        assert 0 < len(out) < n and out==unseen(reversed(names))
        if 0 < sum(map(held_out, names)) < n: assert out=={s for s in names if held_out(s)}
    assert unseen(['s0'])==({'s0'} if held_out('s0') else set())
    alone = next(f's{i}' for i in range(99) if held_out(f's{i}')); assert len(unseen([alone, alone+'x']))==1


@pytest.mark.parametrize('layout', [librispeech, ljspeech, heap], ids=lambda f: f.__name__)
def test_train_takes_it(layout, tmp_path):
    data, out = layout(tmp_path/'data'), tmp_path/'m'
    for part in ('codec', 'stage1')[:2 if layout is librispeech else 1]:
        assert cli.main(['train', part, '--data', str(data), '--out', str(out), '--preset', 'tiny', '--share', '.0005'])==0
    job = Job([data], out, 'tiny'); held = job.unseen(); heard = Waveforms(out/'work'/'packed').clips
    assert held and {c.speaker for c in heard}-held
    notes = json.loads((out/'codec.json').read_text())['notes']
    assert sum(d['recordings'] for d in notes['data'])==6 and sum(d['held_out'] for d in notes['data'])==len(held)
    assert str(tmp_path) not in (out/'codec.json').read_text()          # a card names folders, not where they lie


def test_train_takes_maestro(tmp_path):
    data, out = piano(tmp_path/'data'), tmp_path/'m'
    for part in ('codec', 'symbolic'):
        assert cli.main(['train', part, '--data', str(data), '--out', str(out), '--preset', 'piano', '--share', '.0002'])==0
    assert Job([data], out, 'piano').unseen() in ({'Bach: Fugue'}, {'Chopin: Etude, Op. 10'})
    assert json.loads((out/'codec.json').read_text())['notes']['data'][0]['licence']=='CC BY-NC-SA 4.0'


def test_piano_without_a_preset_is_said(tmp_path, capsys):
    assert cli.main(['train', 'codec', '--data', str(piano(tmp_path/'data')), '--out', str(tmp_path/'m'), '--preset', 'tiny'])==2
    assert '--preset piano' in capsys.readouterr().err


def test_what_lies_beside_recordings_is_not_heard(tmp_path):
    for who,x in zip('ab', VOICES): put(tmp_path/'data'/who/'x.wav', x)
    put(tmp_path/'__MACOSX'/'data'/'a'/'._x.wav', VOICES[0]); put(tmp_path/'.cache'/'y.wav', VOICES[0]); put(tmp_path/'data'/'a'/'._x.wav', VOICES[0])
    for root in (tmp_path, tmp_path/'data'): assert [c.speaker for c in read_folder(root)]==['a','b']


def test_recordings_may_be_links(tmp_path):
    "As in the caches of those who version data."
    for i,x in enumerate(VOICES[:4]): put(tmp_path/'store'/f'{i}.wav', x); (tmp_path/'data'/f's{i}').mkdir(parents=True); (tmp_path/'data'/f's{i}'/'x.wav').symlink_to(tmp_path/'store'/f'{i}.wav')
    job = Job([tmp_path/'data'], tmp_path/'m', 'tiny'); assert all(job.spoken(c.path) for c in job.open().clips) and 0 < len(job.unseen()) < 4
    assert [d['source'] for d in job.heard()]==['data']


def test_one_folder_of_results_is_of_one_corpus(tmp_path):
    one, other = heap(tmp_path/'one'), heap(tmp_path/'other'); Job([one], tmp_path/'m', 'tiny').open()
    for data in ([other], [one, other]):
        with pytest.raises(AudioError, match='holds other recordings'): Job(data, tmp_path/'m', 'tiny').open()
    put(tmp_path/'single'/'x.wav', VOICES[0])
    with pytest.raises(AudioError, match='1 recording of one speaker'): Job([tmp_path/'single', one], tmp_path/'n', 'tiny').unseen()
