"The listening test: exact statistics, blind trials, files, and buttons that can be pressed."
import csv
import math
import random
from fractions import Fraction
from math import comb

import pytest
import torch
from hypothesis import given, settings, strategies as st

from audiolm_edu import listening as li
from audiolm_edu.audio import SR, AudioError, level
from audiolm_edu.corpus import clips
from audiolm_edu.fine_stage import LEVELS
from audiolm_edu.listening import ListeningTest, Session, Tally, Trial
from audiolm_edu.widgets import pcm


def blank(n, kind=li.REAL):
    g, kinds = torch.Generator().manual_seed(0), list(kind)
    many = 1+(kind is li.PAIR)
    sounds = li.equal_level(list(torch.randn(n*many, 800, generator=g)))
    return [Trial(f'{i:03d}', kinds[i%2], tuple(sounds[i*many:(i+1)*many])) for i in range(n)]


def run(session, says):
    while session.trial:
        for k in range(len(session.trial.sounds)): session.listen(k)
        if (said := says(session.trial)) is None: session.skip()
        else: session.answer(said)
    return session


def coin(rng): return lambda t: rng.choice(['real','continued',None])


def play(w, *tracks):
    "As a person does it: play, and switch between sounds that run."
    for k in tracks or [0]: w.deck.track = k; w.deck.playing = True
    w.deck.playing = False


def tree(w): return [w]+[v for child in getattr(w, 'children', ()) for v in tree(child)]


# --- statistics

@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_p_is_a_sum_of_binomials(case):
    k, n = case
    ways = sum(comb(n, i) for i in range(n+1) if comb(n, i) <= comb(n, k))   # whole numbers: no rounding
    assert Tally(k, n).p == pytest.approx(float(Fraction(ways, 2**n)), rel=1e-9)


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_interval_inverts_the_test(case):
    k, n = case; low, high = Tally(k, n).interval
    at = lambda q, ks: sum(comb(n, i)*q**i*(1-q)**(n-i) for i in ks)
    assert low==0 if k==0 else at(low, range(k, n+1))==pytest.approx(.025, rel=1e-6)
    assert high==1 if k==n else at(high, range(k+1))==pytest.approx(.025, rel=1e-6)


def test_nothing_answered():
    t = Tally(0, 0)
    assert math.isnan(t.rate) and t.p==1 and t.interval==(0, 1)


@pytest.mark.parametrize('n,rate', [(5,.9), (6,.9), (37,.6), (100,.5), (100,.65)])
def test_power_is_the_share_of_tests_that_find(n, rate):
    found = sum(comb(n, k)*rate**k*(1-rate)**(n-k) for k in range(n+1) if Tally(k, n).p < .05)
    assert li.power(n, rate)==pytest.approx(found, abs=1e-9)


def test_the_figure_of_the_paper():
    assert Tally(512, 1000).p==pytest.approx(.467, abs=1e-3)


# --- trials and session

@given(st.integers(0, 99), st.randoms())
@settings(max_examples=20)
def test_order_depends_on_the_seed_only(seed, rng):
    trials = blank(12); mixed = trials[:]; rng.shuffle(mixed)
    names = lambda s: [t.name for t in s.trials]
    assert names(Session(trials, seed=seed, rater='a'))==names(Session(mixed, seed=seed, rater='b'))
    assert sorted(names(Session(trials, seed=seed)))==[t.name for t in trials]


def test_another_seed_another_order():
    orders = {tuple(t.truth for t in Session(blank(12), seed=s).trials) for s in range(20)}
    assert len(orders) > 15


def test_an_answer_is_given_once_and_after_listening():
    now = [10.]; s = Session(blank(4), rater='7', seed=5, clock=lambda: now[0])
    with pytest.raises(AudioError, match='listen to the trial'): s.answer('real')
    first = s.trial
    s.listen(); now[0] = 12.; s.listen(); now[0] = 13.5
    with pytest.raises(AudioError, match='answer real or continued'): s.answer('A')
    s.answer('real')
    assert s.answers==[li.Answer('7', first.name, first.truth, 'real', 3.5, 5, li.fingerprint(blank(4)))]
    with pytest.raises(AudioError, match='listen to the trial'): s.answer('continued')
    s.skip()
    assert s.answers[1].answer=='' and s.answers[1].seconds==0 and s.tally.n==1
    run(s, lambda t: t.truth)
    for do in (s.skip, s.listen, lambda: s.answer('real')):
        with pytest.raises(AudioError, match='all trials'): do()
    assert len(s.answers)==4


def test_tally_is_live():
    s, right = Session(blank(10)), 0
    for i in range(10):
        said = 'real' if i%3 else 'continued'; right += said==s.trial.truth
        s.listen(); s.answer(said)
        assert s.tally==Tally(right, i+1)


def test_one_button_all_the_time_is_seen():
    s = run(Session(blank(20)), lambda t: 'real')
    assert s.tally==Tally(10, 20)
    assert {t: c['real'] for t,c in li.said_of(s.answers).items()}=={'real': 10, 'continued': 10}
    assert "where 'continued' was right, 'real' was said 10 times in 10" in li.summary(s.answers)


def test_trials_that_give_something_away():
    good = blank(4); x = good[0].sounds[0]
    bad = lambda sounds, truth='real', name='x': good+[Trial(name, truth, sounds)]
    for trials, why in ((bad((x[1:],)), 'length would'), (bad((x*1.1,)), 'loudness would'), (bad((x*0,)), 'loudness would'),
                        (bad((x*math.nan,)), 'loudness would'), (bad((x,), name='000'), 'have this name'),
                        (bad((x,x)), '1 sound'), (bad((x,), 'A'), 'the truths are'), (bad((x,), 'fake'), 'the truths are'),
                        ([], 'no trials')):
        with pytest.raises(AudioError, match=why): Session(trials)


@given(st.lists(st.floats(.001, .9), min_size=1, max_size=5), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_levels_are_equal_and_nothing_clips(gains, spikes):
    g = torch.Generator().manual_seed(1)
    sounds = [a*torch.randn(4000, generator=g) for a in gains]
    for i in range(spikes): sounds[i%len(sounds)][i] = 40.
    out = li.equal_level(sounds); db = torch.stack([level(x) for x in out])
    assert db.max()-db.min() < 1e-3 and db.max() < -25.99 and max(x.abs().max() for x in out) <= 1
    assert spikes or db.min() > -26.01


# --- trials from recordings

class Echo:
    "Stands in for AudioLM: notes what it is asked, and adds a loud tone."
    def __init__(self): self.codec, self.asked, self.coded = self, [], []

    def roundtrip(self, x, levels): self.coded.append((x, levels)); return x*.5

    def continue_from(self, prompts, seconds, seeds):
        assert len(prompts)==len(seeds)
        self.asked += list(zip(prompts, seeds)); self.batches = getattr(self, 'batches', [])+[len(prompts)]
        tone = torch.sin(torch.arange(round(seconds*25)*640)/9)
        return [type('T', (), dict(audio=torch.cat([p, tone]))) for p in prompts]


def test_classes_share_length_level_and_pool():
    lm, pool = Echo(), clips('speech')
    trials = li.speech_trials(lm, pool, n=10, seed=2, total=5.5, prompt=2.5, batch=2, progress=False)
    by = {t: [u for u in trials if u.truth==t] for t in li.REAL}
    assert [len(v) for v in by.values()]==[5, 5] and lm.batches==[2, 2, 1]
    assert {len(t.sounds[0]) for t in trials}=={round(5.5*25)*640}
    db = {t: torch.stack([level(u.sounds[0]) for u in v]) for t,v in by.items()}
    assert (db['real'].mean()-db['continued'].mean()).abs() < 1e-3 and db['real'].std() < 1e-3
    assert {l for _,l in lm.coded}=={LEVELS}
    assert len({t.name for t in trials})==10     # no recording in both classes
    assert len({s for _,s in lm.asked})==5 and {len(p) for p,_ in lm.asked}=={round(2.5*25)*640}
    sound = {f'{c.speaker}/{c.path.stem}': c for c in pool}
    assert all(sound[t.name].seconds > 5.4 for t in trials)
    for t,(p,_) in zip(by['continued'], lm.asked): assert torch.equal(p, sound[t.name].audio()[:len(p)])
    for t,(x,_) in zip(by['real'], lm.coded): assert torch.equal(x, sound[t.name].audio()[:len(x)])


def test_trials_are_drawn_by_seed():
    make = lambda seed, batch=8: li.speech_trials(Echo(), clips('speech'), 6, seed, 5, batch=batch, progress=False)
    names = lambda ts: [(t.name, t.truth) for t in ts]
    assert names(make(1))==names(make(1, 1)) != names(make(2))


def test_too_few_recordings():
    with pytest.raises(AudioError, match='20 recordings of 10 s are needed, there are 0'):
        li.speech_trials(Echo(), clips('speech'), progress=False)
    for wrong in (dict(n=3), dict(n=0), dict(n=2, prompt=6., total=6.), dict(n=2, prompt=.1)):
        with pytest.raises(AudioError): li.speech_trials(Echo(), clips('speech'), progress=False, **wrong)


def test_the_real_model(lm):
    trials = li.speech_trials(lm, clips('speech'), n=2, total=4, prompt=3, progress=False)
    assert [t.truth for t in trials]==['real', 'continued']
    assert {len(t.sounds[0]) for t in trials}=={4*SR} and len({len(pcm(t.sounds[0])) for t in trials})==1
    assert level(trials[0].sounds[0])==pytest.approx(level(trials[1].sounds[0]).item(), abs=1e-3)
    li.check_trials(trials)


def test_pairs():
    first, second = ([torch.full((50,), v)*torch.tensor([1.,-1.]).repeat(25) for v in range(a, 9, 2)] for a in (1, 2))
    first = [torch.cat([x, x]) for x in first]; second = [torch.cat([x, x*0]) for x in second]   # to know them by
    trials = li.pair_trials(first, second, list('wxyz'), seed=1)
    assert sorted(t.truth for t in trials)==['A','A','B','B']
    for t in trials: assert (t.sounds['AB'.index(t.truth)][50:]!=0).all() and (t.sounds['BA'.index(t.truth)][50:]==0).all()
    assert len({tuple(t.truth for t in li.pair_trials(first, second, list('wxyz'), s)) for s in range(30)}) > 3
    s = run(Session(trials), lambda t: t.truth)
    assert s.tally==Tally(4, 4)
    with pytest.raises(AudioError, match='as many'): li.pair_trials(first, second, ['w'])


def test_both_of_a_pair_must_be_heard():
    s = Session(blank(4, li.PAIR)); s.listen(1); s.listen(1)
    with pytest.raises(AudioError, match='listen'): s.answer('A')
    s.listen(0); s.answer('A'); assert s.tally.n==1


# --- files

def table(tmp_path, i, n=12, rater=None):
    s = run(Session(blank(n), rater=rater or f'rater {i}, "é"', seed=i), coin(random.Random(i)))
    return s.to_csv(tmp_path/f'{i}.csv'), s


def test_round_trip(tmp_path):
    path, s = table(tmp_path, 1)
    assert li.read_answers(path)==s.answers and any(not a.answer for a in s.answers)
    path.write_bytes(b'\xef\xbb\xbf'+path.read_bytes())       # as a spreadsheet saves it
    assert li.read_answers(path)==s.answers
    assert [p.name for p in tmp_path.iterdir()]==['1.csv']
    with path.open(encoding='utf-8-sig') as f: assert next(csv.reader(f))==['rater','trial','truth','answer','seconds','seed','test']
    with pytest.raises(AudioError, match='does not exist'): s.to_csv(tmp_path/'no'/'1.csv')


def test_merge_is_the_pool(tmp_path):
    paths, sessions = zip(*[table(tmp_path, i) for i in range(3)])
    r = li.merge(paths)
    assert r.answers==[a for s in sessions for a in s.answers]
    assert r.tally==Tally(sum(s.tally.right for s in sessions), sum(s.tally.n for s in sessions))
    assert r.raters=={s.rater: s.tally for s in sessions}
    assert all(str(s.tally) in str(r) for s in sessions) and str(r.tally) in str(r)
    assert li.merge(paths)==r
    swapped = li.merge(paths[::-1])
    assert (swapped.tally, swapped.raters, swapped.by_rater)==(r.tally, r.raters, r.by_rater)


def test_a_fingerprint_is_of_the_set():
    own = li.fingerprint(blank(4))
    assert own==li.fingerprint(blank(4)[::-1]) and len({own, li.fingerprint(blank(6)), li.fingerprint([*blank(4)[:3], Trial('003', 'real', blank(4)[3].sounds)])})==3
    louder = [Trial(t.name, t.truth, tuple(x*1.01 for x in t.sounds)) for t in blank(4)]; assert li.fingerprint(louder)!=own


def test_bootstrap_counts_people():
    alike, unlike = [Tally(30, 60)]*6, [Tally(60, 60)]*3+[Tally(0, 60)]*3
    assert li.rater_bootstrap(alike)==(.5, .5)
    low, high = li.rater_bootstrap(unlike); exact = Tally(180, 360).interval
    assert low < exact[0]-.2 and high > exact[1]+.2
    # two raters: four draws, equally likely; only the interval's ends are sure
    assert li.rater_bootstrap([Tally(10, 10), Tally(0, 30)])==(0, 1)
    assert all(map(math.isnan, li.rater_bootstrap([Tally(3, 6), Tally(0, 0)])))
    assert 'nan' not in str(li.ClassResult([], {}, (math.nan, math.nan))).split('anew')[1]


HEAD = 'rater,trial,truth,answer,seconds,seed,test\n'

@pytest.mark.parametrize('text,why', [
    (b'', 'columns must be'), (b'rater,trial\n1,2\n', 'columns must be'), (HEAD.encode(), 'holds no answers'),
    (HEAD.encode()+b'1,a,real,real\n', 'row 1: has not 7 fields'), (HEAD.encode()+b'1,a,real,real,1,2,t,3\n', 'row 1: has not 7'),
    (HEAD.encode()+b'1,a,real,real,fast,2,t\n', 'not a number'), (HEAD.encode()+b'1,a,real,real,1,2.5,t\n', 'not a number'),
    (HEAD.encode()+b'1,a,real,real,nan,2,t\n', 'cannot have taken'), (HEAD.encode()+b'1,a,real,real,-1,2,t\n', 'cannot have taken'),
    (HEAD.encode()+b'1,a,human,real,1,2,t\n', 'human'), (HEAD.encode()+b'1,a,real,A,1,2,t\n', "'A' is neither"),
    (HEAD.encode()+b',a,real,real,1,2,t\n', 'rater is empty'), (HEAD.encode()+b'1,a,real,real,1,2,\n', 'test is empty'), (b'\xff\xfe\x00r', 'no table'), (HEAD.encode()+b'1,"a\n', 'no table'),
    (HEAD.encode()+b'1,a,real,real,1,2,t\n1,a,real,,1,2,t\n', '2 times'), (HEAD.encode()+b'1,a,real,real,1,2,t\n1,b,A,B,1,2,t\n', 'the truths are'),
    (HEAD.encode()+b'1,a,real,real,1,2,t\n2,a,real,real,1,2,u\n', '2 different sets'),
])
def test_malformed_files(tmp_path, text, why):
    path = tmp_path/'x.csv'; path.write_bytes(text)
    with pytest.raises(AudioError, match=why) as e: li.merge([path])
    assert '\n' not in str(e.value) and str(e.value).count('. ')==0


def test_missing_files(tmp_path):
    with pytest.raises(AudioError, match='no such file'): li.merge([tmp_path/'x.csv'])
    with pytest.raises(AudioError): li.merge([])


# --- the view

def test_nothing_on_the_screen_tells():
    s = Session([Trial(f'speaker/{t.name}', t.truth, t.sounds) for t in blank(8)], seed=1)
    w, shown = ListeningTest(s), {}
    for i in range(8):
        play(w); truth, name = s.trial.truth, s.trial.name
        states = [v.get_state() for v in tree(w)]
        text = repr([{k: v for k,v in state.items() if k not in ('sounds','_esm','_css')} for state in states])
        assert 'continued' not in text and 'real' not in text and name not in text
        assert 'right' not in text
        player, = w.player.children; assert player is w.deck
        shown.setdefault(truth, set()).add((*map(len, player.sounds), *player.names, player.picture, player.blind, player.title, player.note, player.rate))
        assert player.sounds==[pcm(s.trial.sounds[0])] and player.blind and not player.picture
        w.buttons['real'].click()
    assert shown['real']==shown['continued']
    assert '4 of 8 right' in w.note.value        # now it may be said


def test_buttons_change_the_session(tmp_path):
    s = Session(blank(4), rater='1'); w = ListeningTest(s, path=tmp_path/'1.csv')
    real, model = w.buttons['real'], w.buttons['continued']
    assert real.disabled and model.disabled and not s.heard
    real.click(); assert s.answers==[]
    w.deck.position = .01; assert real.disabled             # to seek is not to listen
    play(w); assert not real.disabled
    first, start = w.deck, s.start
    play(w); assert w.deck is first and s.start==start      # the clock runs from the first listening
    model.click(); model.click()     # heard twice, a double click
    assert [a.answer for a in s.answers]==['continued'] and real.disabled and w.bar.value==1
    assert w.deck is not first and first.comm is None and not w.deck.playing     # nothing of the old one is left
    first.playing = True; assert not s.heard and real.disabled                  # a late word of the old deck
    assert li.read_answers(tmp_path/'1.csv')==s.answers
    w.skip.click(); assert s.answers[1].answer==''
    for _ in range(2): play(w); last = w.deck; real.click()
    assert s.trial is None and list(w.children)==[w.bar, w.note] and not w.player.children
    last.playing = True
    for b in (real, model, w.skip): b.click()
    assert len(s.answers)==4 and s.tally.n==3 and str(s.tally) in w.note.value
    assert li.read_answers(tmp_path/'1.csv')==s.answers


def test_live_rate_is_an_option():
    for live in (False, True):
        s = Session(blank(4)); w = ListeningTest(s, live=live)
        play(w); w.buttons['real'].click()
        assert ('So far' in w.note.value)==live and (str(s.tally) in w.note.value)==live


def test_pairs_on_the_screen():
    s = Session(blank(4, li.PAIR)); w = ListeningTest(s)
    assert w.deck.names==['A','B'] and w.deck.sounds==[pcm(x) for x in s.trial.sounds]
    play(w, 0); assert w.buttons['A'].disabled and s.heard=={0}
    w.deck.track = 1; assert w.buttons['A'].disabled and s.heard=={0}     # chosen, not yet played
    play(w, 1); assert not w.buttons['A'].disabled
    w.buttons['B'].click(); assert s.answers[0].answer=='B' and w.deck.track==0 and w.buttons['B'].disabled
    play(w, 0, 1); assert s.heard=={0, 1} and not w.buttons['B'].disabled   # switched while it runs


def test_what_is_shown_is_escaped():
    w = ListeningTest(Session([Trial(f'<b>{t.name}', *(t.truth, t.sounds)) for t in blank(2)], rater='<script>'))
    while w.session.trial: w.skip.click()
    assert '<script>' not in w.note.value and '<b>' not in w.note.value
    assert '<script>' not in repr(w) and w.session.tally.n==0
