"Widgets in a real browser: clicks and keys, what Python hears of them, and the level of the sound that is played."
import pytest

from audiolm_edu.corpus import clips
from browser import a_lab, needs_browser

VOICE = "from audiolm_edu.corpus import clips\nx = next(c for c in clips('speech') if c.seconds > 3).audio()[:48000]"


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
    needs_browser()
    with a_lab(tmp_path_factory.mktemp('lab')) as lab: yield lab


@pytest.fixture(autouse=True)
def clean(lab):
    "No request leaves the machine, and nothing goes wrong in the page."
    lab.outside.clear(); lab.errors.clear(); yield
    assert not lab.outside and not lab.errors


def rms(x): return x.pow(2).mean().sqrt().item()


def voice(): return next(c for c in clips('speech') if c.seconds > 3).audio()[:48000]


def test_a_sound_is_heard_as_loud_as_it_is(lab):
    lab.run('listen.ipynb', VOICE+"\nfrom audiolm_edu.widgets import *\nd = Listen(x, 'a voice')\ntell(d, 'playing', 'position', 'heard', 'span', 'looping')\nd")
    deck = lab.page.locator('.ae-deck'); deck.wait_for(); lab.picture('listen', deck)
    deck.locator('.ae-play').click(); lab.until(lambda t: t['playing'])
    told = lab.until(lambda t: not t['playing'] and t['heard'])
    h = told['heard']['sound']; assert abs(h['seconds']-3) < .1
    assert abs(h['rms']*(h['seconds']/3)**.5/rms(voice())-1) < .02               # the meter also counts a little silence around it
    canvas = deck.locator('canvas'); canvas.focus()
    lab.page.keyboard.press('End'); assert abs(lab.until(lambda t: t['position'] > 2.9)['position']-3) < .01
    lab.page.keyboard.press('ArrowLeft'); lab.until(lambda t: abs(t['position']-2) < .01)
    lab.page.keyboard.press('Shift+ArrowLeft'); lab.until(lambda t: abs(t['position']-1.9) < .01)
    lab.page.keyboard.press('Home'); lab.until(lambda t: t['position']==0)
    box = canvas.bounding_box(); at = lambda s: box['x']+box['width']*s/3
    lab.page.mouse.click(at(1.5), box['y']+20); assert abs(lab.until(lambda t: t['position'] > 1)['position']-1.5) < .02
    lab.page.mouse.move(at(1), box['y']+20); lab.page.mouse.down(); lab.page.mouse.move(at(1.2), box['y']+20); lab.page.mouse.move(at(1.4), box['y']+20); lab.page.mouse.up()
    a, b = lab.until(lambda t: t['span'] and t['span'][1] > 1.35)['span']; assert abs(a-1) < .02 and abs(b-1.4) < .02
    lab.page.keyboard.press('l'); lab.until(lambda t: t['looping']); lab.page.keyboard.press('Space'); lab.page.wait_for_timeout(1200); lab.page.keyboard.press('Space')
    assert 1 <= lab.until(lambda t: not t['playing'])['position'] <= 1.4
    assert canvas.get_attribute('role')=='slider' and float(canvas.get_attribute('aria-valuemax'))==3


def test_switching_keeps_the_position_and_each_sound_its_level(lab):
    lab.run('ab.ipynb', VOICE+"\nfrom audiolm_edu.widgets import *\nd = ABPlayer({'loud': x, 'soft': .25*x})\ntell(d, 'playing', 'position', 'heard', 'track')\nd")
    deck = lab.page.locator('.ae-deck'); deck.wait_for(); deck.locator('.ae-play').click(); lab.until(lambda t: t['playing'])
    lab.page.wait_for_timeout(600); lab.page.keyboard.press('2'); told = lab.until(lambda t: t['track']==1)
    jump = lab.page.evaluate("""async () => { const el = document.querySelector('.ae-deck'), tab = el.querySelectorAll('[role=radio]');
        const apart = () => el.deck.position-el.deck.ctx.currentTime, before = apart(); tab[0].click(); el.querySelectorAll('[role=radio]')[1].click();
        await new Promise(r => setTimeout(r, 100)); return apart()-before }""")
    assert abs(jump) < .03
    lab.picture('ab', deck); told = lab.until(lambda t: not t['playing'])
    loud, soft = told['heard']['loud'], told['heard']['soft']; assert abs(loud['seconds']+soft['seconds']-3) < .15
    lab.page.keyboard.press('2'); lab.run('ab2.ipynb', VOICE+"\nfrom audiolm_edu.widgets import *\nd = ABPlayer({'loud': x, 'soft': .25*x})\nd.track = 1\ntell(d, 'playing', 'heard')\nd")
    lab.page.locator('.ae-play').last.click(); lab.until(lambda t: t['playing']); h = lab.until(lambda t: not t['playing'] and t['heard'])['heard']
    assert set(h)=={'soft'} and abs(h['soft']['rms']*(h['soft']['seconds']/3)**.5/(.25*rms(voice()))-1) < .02


def test_a_blind_test_counts_what_is_clicked(lab):
    lab.run('abx.ipynb', VOICE+"\nfrom audiolm_edu.widgets import *\nd = ABPlayer({'a': x, 'b': x.flip(0)}, blind=True, seed=3)\ntell(d, 'said', 'note', 'names')\nd")
    deck = lab.page.locator('.ae-deck'); deck.wait_for(); assert [b.inner_text() for b in deck.locator('[role=radio]').all()]==['A', 'B', 'X']
    assert lab.page.evaluate('''() => { const c = document.querySelector('.ae-deck canvas'), g = c.getContext('2d'), d = g.getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 3; i < d.length; i += 4) n += d[i] > 0; return n/(c.width*c.height) }''') < .1    # no waveform that tells
    for i,name in enumerate(('X is A', 'X is B', 'X is A')):
        deck.get_by_role('button', name=name).click(); assert lab.until(lambda t: t['said'] and t['said'][0]==i+1)['said'][1]==name
    lab.until(lambda t: t['note']=='3 answered'); deck.get_by_text('3 answered').wait_for(); lab.picture('abx', deck)


def test_levels_are_decoded_while_it_plays(lab):
    lab.run('levels.ipynb', VOICE+"\nfrom audiolm_edu.widgets import *\nfrom audiolm_edu.codec import Codec\np = LevelPlayer(Codec.from_pretrained(), x, other=x.flip(0))\n"
            "tell(p, 'levels', 'muted', 'swapped')\np")
    deck = lab.page.locator('.ae-deck'); deck.wait_for(); deck.locator('.ae-play').click(); lab.page.wait_for_timeout(400)
    handle = lab.page.locator('.noUi-handle').first; handle.focus(); before = deck.locator('.ae-note').inner_text()
    for _ in range(20): lab.page.keyboard.press('ArrowLeft')
    lab.until(lambda t: t['levels']==4); deck.get_by_text('4 levels, 1000 bit/s').wait_for(); assert deck.locator('.ae-note').inner_text()!=before
    lab.page.locator('.widget-dropdown select').first.select_option('level 1'); lab.until(lambda t: t['muted']==1)
    lab.page.locator('.widget-dropdown select').nth(1).select_option('level 2'); lab.until(lambda t: t['swapped']==2); lab.picture('levels')


def test_a_token_is_heard_at_a_click(lab):
    lab.run('tokens.ipynb', VOICE+"\nfrom audiolm_edu.widgets import *\nfrom audiolm_edu.semantic import SemanticTokenizer\nz = SemanticTokenizer.from_pretrained().encode(x[None])[0]\n"
            "d = TokenStrip(x, {'semantic': z}, {'semantic': {'itself': z}})\ntell(d, 'picked', 'hovered', 'note', 'playing', 'heard', 'position', 'rows')\nd")
    deck = lab.page.locator('.ae-deck'); deck.wait_for(); canvas = deck.locator('canvas'); box = canvas.bounding_box(); tokens = lab.told()['rows'][0]['tokens']
    x, y = box['x']+box['width']*(30.5/75), box['y']+box['height']-9
    lab.page.mouse.move(x, y); told = lab.until(lambda t: t['hovered']); assert told['hovered']==dict(row=0, frame=30, token=tokens[30])
    told = lab.until(lambda t: 'in the corpus' in t['note']); assert told['note'].startswith(f'semantic {tokens[30]}: {tokens.count(tokens[30])} of 75 frames here')
    lab.page.mouse.click(x, y); told = lab.until(lambda t: t['picked'] and not t['playing'] and t['heard']); assert told['picked']['frame']==30
    assert abs(told['position']-31/25) < .01 and .005 < told['heard']['sound']['seconds'] < .2; lab.picture('tokens', deck)
    lab.page.mouse.move(box['x']+box['width']/3, y); lab.page.mouse.down(); lab.page.mouse.move(box['x']+box['width']/2, y, steps=4); lab.page.mouse.up()
    assert abs(lab.until(lambda t: not t['playing'] and t['position'] > 1.4)['position']-1.5) < .05


def test_a_growing_sound_is_played_without_a_gap_and_waited_for(lab):
    "More of a sound arrives while it plays: no block of 8 ms is lost; when nothing is left it waits, and goes on."
    lab.run('growing.ipynb', """import threading, torch
from audiolm_edu.widgets import Deck
x = .5*torch.sin(2*torch.pi*1000*torch.arange(48000)/16000)
d = Deck()
part = lambda s, all=False: d.load({'s': torch.cat([x[:int(s*16000)], torch.zeros(48000-int(s*16000))])}, ready=-1. if all else s)
def grow(c):
    if c.new=='begin': [threading.Timer(s, part, (p, p==3)).start() for s,p in ((.2, 1.75), (.5, 2.), (3.5, 3.))]
part(1.5); d.observe(grow, 'title'); d.observe(lambda c: c.new and setattr(d, 'title', 'begin'), 'playing')
tell(d, 'playing', 'position', 'heard'); d""")
    deck = lab.page.locator('.ae-deck'); deck.wait_for()
    lab.page.evaluate("() => { const d = document.querySelector('.ae-deck').deck, f = d.onlevel; window.blocks = []; d.onlevel = (n, s) => { f(n, s); window.blocks.push(s/n) } }")
    deck.locator('.ae-play').click(); told = lab.until(lambda t: t['playing'] and abs(t['position']-2) < .02)     # it waits there
    told = lab.until(lambda t: not t['playing']); assert abs(told['heard']['s']['seconds']-3) < .15
    loud = [v > .1 for v in lab.page.evaluate('() => window.blocks')]; runs = ''.join('#' if v else ' ' for v in loud).split()
    assert len(runs)==2 and abs(len(runs[0])*.008-2) < .05 and abs(len(runs[1])*.008-1) < .05     # one pause, for want of sound
