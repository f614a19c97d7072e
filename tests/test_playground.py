"The playground: what is counted, what is played, what is judged; and the same by clicks and keys in a real browser."
import json
import math

import pytest
import torch
from hypothesis import given, strategies as st

from audiolm_edu.attacks import attacks
from audiolm_edu.audio import SR, AudioError
from audiolm_edu.codec import Codec
from audiolm_edu.corpus import clips
from audiolm_edu.detector import Detector
from audiolm_edu.fine_stage import LEVELS
from audiolm_edu.hub import locate
from audiolm_edu.listening import Trial, equal_level
from audiolm_edu.playground import DetectorPlayground, called, panel, picture, precision, roc
from audiolm_edu.watermark import Watermark
from audiolm_edu.widgets import pcm
from browser import a_lab, needs_browser

REPORT = json.loads((locate('detector')/'report.json').read_text())


@pytest.fixture(scope='module')
def models(): return dict(detector=Detector.from_pretrained(), pair=Watermark.from_pretrained(), codec=Codec.from_pretrained('speech'))


def voices(n, seconds=3):
    "Recordings through the codec; every second one is said to be the model's, which the detector will deny."
    codec, long = Codec.from_pretrained('speech'), [c for c in clips('speech') if c.seconds > 4][:n]
    sounds = equal_level([codec.roundtrip(c.audio()[:round(seconds*SR)], LEVELS) for c in long], -20)
    return [Trial(f'{i}', ('real','continued')[i%2], (x,)) for i,x in enumerate(sounds)]


def play(g): g.deck.playing = True; g.deck.playing = False


# --- counts

SIDES = st.lists(st.floats(0, 1), min_size=1, max_size=20)

@given(SIDES, SIDES, st.lists(st.floats(0, 1), min_size=2, max_size=5))
def test_a_higher_threshold_calls_fewer(yes, no, steps):
    counts = [[x.right for x in called(yes, no, s)] for s in sorted(steps)]
    for low,high in zip(counts, counts[1:]): assert low[0] >= high[0] and low[1] >= high[1]
    for s,(found,accused) in zip(sorted(steps), counts):
        assert (accused/len(no), found/len(yes)) in roc(yes, no)         # every threshold is a point of the curve
        assert found==sum(p > s for p in yes) and accused==sum(p > s for p in no)
    curve = roc(yes, no); assert curve==sorted(curve) and curve[0]==(0, 0) and curve[-1]==(1, 1)


def test_the_report_is_counted_as_the_bench_did():
    for name,r in {'plain': REPORT['plain'], **REPORT['attacks']}.items():
        found, accused = called(r['yes'], r['no'], .5)
        assert (found.rate, accused.rate)==pytest.approx((r['found'], r['false'])), name
        x, y = zip(*roc(r['yes'], r['no']))
        area = sum((b-a)*(u+v)/2 for a,b,u,v in zip(x, x[1:], y, y[1:])); assert area==pytest.approx(r['auc']), name


@given(st.floats(.01, 1), st.floats(.01, 1), st.floats(.001, .999))
def test_precision_is_bayes_rule(hit, alarm, share):
    n = 10**6; right, wrong = n*share*hit, n*(1-share)*alarm
    assert precision(hit, alarm, share)==pytest.approx(right/(right+wrong))
    assert precision(hit, alarm, .5)==pytest.approx(hit/(hit+alarm)) and math.isnan(precision(0, 0, share))


# --- the game

def test_a_guess_needs_ears_and_counts_once(models):
    g = DetectorPlayground(voices(4), **models, seed=2); truths = []
    while True:
        truth = g.trial.truth; truths.append(truth); first = g.deck
        assert g.deck.blind and not g.deck.picture and g.shown=={} and all(b.disabled for b in g.buttons.values()) and g.more.disabled
        screen = g.ask.value+g.judged.value+g.deck.title+g.deck.note
        assert 'generated' not in screen and truth not in screen and 'It was' not in screen and g.trial.name not in g.deck.names
        g.say('real'); assert g.guess=='' and len(g.session.answers)==len(truths)-1
        g.next(); assert g.trial.truth==truth and len(g.session.answers)==len(truths)-1      # there is no way around
        play(g); assert not any(b.disabled for b in g.buttons.values())
        g.buttons['real'].click(); g.buttons['continued'].click(); g.say('continued')      # a double click
        assert g.guess=='real' and g.score['you']==[truths.count('real'), len(truths)]
        assert g.score['detector']==[truths.count('real'), len(truths)]     # to it they are recordings, all of them
        assert not g.deck.blind and g.deck.picture and g.shown['truth']==truth and g.shown['called']=='recording'
        assert f"Right so far: you {truths.count('real')} of {len(truths)}" in g.ask.value
        if g.more.disabled: break
        play(g); assert len(g.session.heard)==0                            # the next one has not been heard
        g.more.click(); assert g.deck is not first or first.comm is None
    assert sorted(truths)==['continued','continued','real','real'] and 'That was the last one' in g.ask.value
    last = g.trial; g.next(); g.say('real'); assert g.trial is last and g.score['you'][1]==4


def test_an_attack_is_heard_and_it_is_what_is_judged(models):
    g = DetectorPlayground(voices(2), **models); x = g.trial.sounds[0]
    assert g.deck.names==['as it is'] and g.deck.sounds==[pcm(x)]
    play(g); g.say('real'); assert g.shown['probability']==models['detector'].probability(x)
    for name in ('low-pass', 'white noise', 'speed 1.25'):
        torch.manual_seed(9); state = torch.random.get_rng_state(); g.attack = name
        assert torch.equal(torch.random.get_rng_state(), state)            # the reader's dice
        torch.manual_seed(0); want = attacks(models['codec'])[name](x[None])[0]
        y = g.deck.tracks['attacked']; assert torch.equal(y[:len(want)], want) and not y[len(want):].any()
        assert g.deck.names==['attacked','as it is'] and g.deck.sounds[1]==pcm(x) and g.deck.sounds[0]!=pcm(x)
        verdict, plain = models['detector'].judge(want), models['detector'].judge(x); assert g.shown['probability']==verdict.probability
        assert torch.equal(g.verdict.odds.nan_to_num(), verdict.odds.nan_to_num()) and not torch.equal(verdict.odds.nan_to_num(), plain.odds.nan_to_num())
        assert f'After {name}' in g.rated.value and g.rates['no']==len(REPORT['attacks'][name]['no'])
    g.attack = 'none'; assert g.deck.sounds==[pcm(x)] and 'Without an attack' in g.rated.value and g.rates['yes']==len(REPORT['plain']['yes'])
    g.attack = 'codec, 8 levels'; assert 'no figures for codec, 8 levels' in g.rated.value and g.rates['yes']==len(REPORT['plain']['yes'])


def test_the_mark_is_found_when_it_is_there(models):
    g = DetectorPlayground(voices(2, 4), **models, message=0x1234); play(g); g.say('real')
    assert not g.shown['found'] and g.shown['message'] is None and not g.shown['same'] and 'no mark found' in g.judged.value
    g.marked = True; assert g.deck.names[0]=='marked' and g.deck.sounds[0]!=g.deck.sounds[1]
    assert g.shown['found'] and g.shown['same'] and g.shown['message']==0x1234 and 'message 1234' in g.judged.value and 'as put in' in g.judged.value
    g.attack = 'low-pass'; assert not g.shown['found'] and 'though one was put in' in g.judged.value
    g.marked, g.attack = False, 'none'; assert not g.shown['found'] and 'put in' not in g.judged.value
    g.marked = True; g.message = 0x4321; g.show(); assert not g.shown['same'] and 'but 4321 was put in' in g.judged.value
    g.change(); assert g.shown['same'] and 'message 4321' in g.judged.value
    other = DetectorPlayground([Trial(t.name, t.truth, (models['pair'].embed(t.sounds[0], 7),)) for t in g.session.trials], **models)
    play(other); other.say('real'); assert other.shown['found'] and not other.shown['same'] and 'which was not put in' in other.judged.value


def test_the_threshold_decides(models):
    g = DetectorPlayground(voices(2), **models); play(g); g.say('real'); p = g.shown['probability']; assert .01 < p < .5
    r, before = REPORT['attacks']['white noise'], None; g.attack = 'white noise'; p = g.shown['probability']
    for s in (0., .02, .1, .5, .6, .99):
        g.threshold = s
        assert g.shown['called']==('generated' if p > s else 'recording') and g.shown['probability']==p
        assert (g.rates['found'], g.rates['accused'])==(sum(v > s for v in r['yes']), sum(v > s for v in r['no']))
        found, accused = called(r['yes'], r['no'], s); low, high = accused.interval
        assert f"{accused.right} of {accused.n} ({low:.0%} to {high:.0%}) recordings are accused" in g.rated.value
        now = g.rates['found'], g.rates['accused']; assert before is None or now[0] <= before[0] and now[1] <= before[1]; before = now
    assert g.rates['found']==0


def test_the_detector_scores_at_the_threshold_of_the_guess(models):
    g = DetectorPlayground(voices(2), **models, seed=1); g.threshold = 0.      # everything is generated
    while g.session.trial: play(g); g.say(g.trial.truth); g.next()
    assert g.score==dict(you=[2, 2], detector=[1, 2])
    g.threshold = .5; assert g.score['detector']==[1, 2]                       # what was called stays called


def test_what_fails_is_said_and_the_game_goes_on(models, monkeypatch):
    import builtins; real = builtins.__import__
    def no_av(name, *args, **kwargs):
        if name=='av': raise ImportError
        return real(name, *args, **kwargs)
    g = DetectorPlayground(voices(2), **models); play(g); g.say('real'); g.marked = True
    monkeypatch.setattr(builtins, '__import__', no_av)
    g.attack = 'AAC 64'; assert g.trouble=='AAC 64: AAC needs PyAV: pip install av' and g.trouble in g.judged.value
    assert g.deck.names==['as it is'] and not g.shown['found'] and 'put in' not in g.judged.value
    g.attacks['boost'] = lambda x: x*math.nan; g.attack = 'boost'; assert 'not numbers' in g.trouble
    g.attacks['duck'] = lambda x: (_ for _ in ()).throw(OSError('<b>disc</b>')); g.attack = 'duck'
    assert 'duck: &lt;b&gt;disc&lt;/b&gt;' in g.judged.value and '<b>' not in g.judged.value
    g.attack = 'low-pass'; assert g.trouble=='' and g.deck.names==['attacked','as it is']


def test_too_short_to_tell(models):
    for seconds in (.5, .02):
        g = DetectorPlayground(voices(2, seconds), **models); play(g); g.say('real')
        assert g.shown['called']=='unknown' and 'cannot tell' in g.judged.value and g.score==dict(you=[g.trial.truth=='real', 1], detector=[0, 0])
        g.marked = True; g.attack = 'MP3 32'; assert g.shown['called']=='unknown'
    assert 'needs at least' in g.trouble                                      # 20 ms cannot be marked


def test_what_cannot_be_played(models):
    a, b = voices(2)
    for trials, why in (([Trial('x', 'A', (*a.sounds, *b.sounds))], 'single sounds'), ([], 'no trials'),
                        ([a, Trial('x', 'real', (b.sounds[0]*2,))], 'loudness would')):
        with pytest.raises(AudioError, match=why): DetectorPlayground(trials, **models)


def test_a_reader_without_a_kernel_gets_sound_and_pictures(models):
    g = DetectorPlayground(voices(2), **models); play(g); g.say('real'); g.attack = 'telephone'
    page = g._repr_mimebundle_()[0]['text/html']
    assert page.count('audio/mpeg')==2 and page.count('<img alt="')==3 and 'After telephone' in page and 'It was' in page
    for w in (g.judged, g.rated): assert w.value.count('role="status"')==1 and w.value.count('alt="')==1
    assert 'the threshold' not in panel(['<i>']) and '&lt;i&gt;' in panel(['<i>'])
    assert 'alt="&quot;a&quot;"' in picture(lambda ax: ax.plot([0, 1]), '"a"')


# --- in a browser

@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    needs_browser()
    with a_lab(tmp_path_factory.mktemp('lab')) as lab: yield lab


@pytest.fixture
def clean(lab):
    "No request leaves the machine, and nothing goes wrong in the page."
    lab.outside.clear(); lab.errors.clear(); yield
    assert not lab.outside and not lab.errors


VOICES = """from audiolm_edu.corpus import clips
from audiolm_edu.listening import *
sounds = equal_level([c.audio()[:48000] for c in [c for c in clips('speech') if c.seconds > 4][:4]], -20)"""


WAITS = "() => document.activeElement.matches('.widget-hprogress')"
FOCUS = '() => document.activeElement.className'


def test_by_clicks_and_keys(lab, clean, models):
    lab.run('playground.ipynb', VOICES+"\nfrom audiolm_edu.playground import *\ng = DetectorPlayground([Trial(str(i), ('real','continued')[i%2], (x,)) for i,x in enumerate(sounds)])\n"
            "tell(g, 'attack', 'marked', 'threshold', 'guess', 'shown', 'rates', 'score', 'heard', 'trouble')\ng")
    page, deck = lab.page, lab.page.locator('.ae-deck'); deck.wait_for(); press = lambda name: page.get_by_role('button', name=name, exact=True)
    assert press('a recording').is_disabled() and press('next').is_disabled()
    page.get_by_text('Sound 1 of 4: a recording, or the model?').wait_for(); assert page.get_by_text('The detector waits').count()==1
    deck.locator('.ae-play').click(); page.wait_for_function("() => !document.querySelector('.widget-button').disabled")
    plain = lab.until(lambda t: t['heard'] and t['heard']['as it is']['seconds'] > 2.9)['heard']['as it is']
    sounds = equal_level([c.audio()[:48000] for c in [c for c in clips('speech') if c.seconds > 4][:4]], -20)
    assert abs(plain['rms']*(plain['seconds']/3)**.5/.1-1) < .02 and all(abs(x.square().mean().sqrt()-.1) < 1e-4 for x in sounds)
    press('a recording').click(); told = lab.until(lambda t: t['shown']); assert told['guess']=='real' and told['score']['you'][1]==1
    page.get_by_text('Right so far').wait_for(); assert press('a recording').is_disabled()
    page.wait_for_function(WAITS); page.keyboard.press('Tab'); assert page.evaluate(FOCUS)=='ae-play'                # the keyboard waits before the sound
    page.locator('.widget-dropdown select').select_option('duck'); told = lab.until(lambda t: t['attack']=='duck' and t['rates']['after']=='After duck')
    deck.get_by_role('radio', name='attacked').wait_for(); deck.locator('.ae-play').click()
    h = lab.until(lambda t: t['heard'].get('attacked', {}).get('seconds', 0) > 2.9)['heard']['attacked']
    assert abs(h['rms']*(h['seconds']/3)**.5/.01-1) < .02                                               # a tenth as loud
    page.locator('.widget-dropdown select').select_option('white noise'); lab.until(lambda t: t['rates']['after']=='After white noise')
    handle = page.locator('.noUi-handle'); handle.focus(); before = lab.told()['rates']
    for _ in range(45): page.keyboard.press('ArrowLeft')
    told = lab.until(lambda t: abs(t['threshold']-.05) < 1e-6); r = REPORT['attacks']['white noise']
    told = lab.until(lambda t: t['rates']['accused']==sum(p > .05 for p in r['no'])); assert told['rates']['accused'] > before['accused']
    page.get_by_text(f"{told['rates']['accused']} of 48").wait_for()
    page.get_by_label('watermark').check(); lab.until(lambda t: t['marked']); page.locator('.widget-dropdown select').select_option('MP3 32')
    lab.until(lambda t: t['attack']=='MP3 32' and t['shown']['found'] and t['shown']['same']); page.get_by_text('message a0d1').wait_for(); page.get_by_text('After MP3 32').wait_for()
    lab.picture('playground', page.locator('.jp-OutputArea-output').last)
    press('next').click(); page.get_by_text('Sound 2 of 4').wait_for(); lab.until(lambda t: t['guess']=='' and t['shown']=={}); assert press('the model').is_disabled()
    assert page.locator('img[alt^="ROC"]').count()==1 and page.locator('img[alt^="second by second"]').count()==0


def test_a_listening_test_to_its_end(lab, clean):
    lab.run('test.ipynb', VOICES+"\ntrials = [Trial(str(i), ('real','continued')[i%2], (x[:8000],)) for i,x in enumerate(sounds)]\ntrials = [Trial(t.name, t.truth, (x,)) for t,x in zip(trials, equal_level([t.sounds[0] for t in trials]))]\n"
            "import traitlets\nclass Watched(ListeningTest):\n    said = traitlets.List()\n    def _keep(self): super()._keep(); self.said = [a.answer for a in self.session.answers]\n"
            "w = Watched(Session(trials))\ntell(w, 'said')\nw")
    page = lab.page; press = lambda name: page.get_by_role('button', name=name, exact=True); said = []
    for i,name in enumerate(('a person', 'the model', 'Skip', 'the model')):
        page.get_by_text(f'Sound {i+1} of 4').wait_for(); assert press('a person').is_disabled() and page.locator('.ae-deck').count()==1
        if name=='Skip': press(name).click()
        else: page.locator('.ae-play').click(); press(name).click()         # waits until it is enabled: until it was heard
        said.append({'a person': 'real', 'the model': 'continued', 'Skip': ''}[name]); lab.until(lambda t: t['said']==said)
        if i==0: page.wait_for_function(WAITS); page.keyboard.press('Tab'); assert page.evaluate(FOCUS)=='ae-play'; lab.picture('listening')
    page.get_by_text('Thank you').wait_for(); assert page.locator('.ae-deck').count()==0 and page.get_by_text('1 skipped').count()==1


def test_both_of_a_pair_are_played(lab, clean):
    lab.run('pair.ipynb', VOICES+"\ntrials = pair_trials([x[:16000] for x in sounds[:2]], [x[:16000].flip(0) for x in sounds[:2]], ['a','b'])\n"
            "import traitlets\nclass Watched(ListeningTest):\n    said = traitlets.List()\n    def _keep(self): super()._keep(); self.said = [a.answer for a in self.session.answers]\n"
            "w = Watched(Session(trials))\ntell(w, 'said')\nw")
    page = lab.page; press = lambda name: page.get_by_role('button', name=name, exact=True); page.locator('.ae-deck').wait_for()
    page.locator('.ae-play').click(); page.wait_for_timeout(300); assert press('A is better').is_disabled()
    page.get_by_role('radio', name='B', exact=True).click(); press('B is better').click(); lab.until(lambda t: t['said']==['B'])
    page.get_by_text('Sound 2 of 2').wait_for(); assert press('A is better').is_disabled()
    press('Skip').click(); lab.until(lambda t: t['said']==['B', '']); page.get_by_text('Thank you').wait_for()
