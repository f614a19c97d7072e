"ABX and PNMI: by hand, against a second implementation, and what must not change the result."
import math
import random
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.metrics import mutual_info_score

from audiolm_edu import evaluate as ev
from audiolm_edu.audio import AudioError
from audiolm_edu.evaluate import Item, Phone, abx

inf = 10**6


def at(degrees): return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def speech(seed, speakers=3, length=120, names='aius', voice=.5, noise=1., D=12, short=(.03,.05,.08,.12)):
    "Recordings with phones of uneven length, some silence, and frames that depend on both phone and speaker."
    rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
    sound, colour = ({k: torch.randn(D, generator=g) for k in ks} for ks in ((*names,'SIL'), range(speakers)))
    features, phones = {}, []
    for s in range(speakers):
        for n in range(2):
            t, path = 0., f'{s}_{n}.flac'
            for _ in range(length//2):
                end = t+rng.choice(short)
                phones.append(Phone(path, f'S{s}', t, end, rng.choice([*names,'SIL']))); t = end
            labels = ev.phone_of_frames(phones, path, math.ceil(t*25))
            features[path] = torch.stack([sound[p] for p in labels])+voice*colour[s]+noise*torch.randn(len(labels), D, generator=g)
    return features, phones


# --- distances

def naive_dtw(d):
    "Costs forward, then a walk back that counts points; lists only."
    T, U = len(d), len(d[0]); c = [[math.inf]*U for _ in range(T)]
    for i in range(T):
        for j in range(U):
            c[i][j] = d[i][j]
            if i and j: c[i][j] += min(c[i-1][j-1], c[i][j-1], c[i-1][j])
            elif i: c[i][j] += c[i-1][j]
            elif j: c[i][j] += c[i][j-1]
    i, j, points = T-1, U-1, 1
    while i or j:
        diag, left, up = (c[a][b] if a>=0 and b>=0 else math.inf for a,b in ((i-1,j-1), (i,j-1), (i-1,j)))
        if diag<=left and diag<=up: i, j = i-1, j-1
        elif left<=up: j -= 1
        else: i -= 1
        points += 1
    return c[-1][-1]/points


def test_angles():
    x = torch.tensor([at(0), at(90), at(180), [0,0]], dtype=torch.float64)
    d = ev.angular(x[None], x[None])[0]
    assert torch.equal(d, torch.tensor([[0,.5,1,1],[.5,0,.5,1],[1,.5,0,1],[1,1,1,0.]], dtype=torch.float64))
    for small in (1e-30, 1e30): assert torch.equal(ev.angular(small*x[None], x[None])[0], d)
    y = torch.randn(2, 7, 200); batch = ev.angular(y, y)
    for b in range(2):
        assert (batch[b].diagonal()==0).all() and torch.equal(batch[b], batch[b].T)
        for i in range(7): assert torch.equal(ev.angular(y[b:b+1,i:i+1], y[b:b+1])[0,0], batch[b,i])     # same bits in any batch


def test_dtw_by_hand():
    d = torch.tensor([[1.,3,8],[9,2,1]])
    assert ev.dtw_path(d)==[(0,0),(1,1),(1,2)] and ev.dtw(d)==pytest.approx(4/3)
    assert ev.dtw(torch.tensor([[1.,2,3]]))==2 and ev.dtw(torch.tensor([[5.]]))==5
    assert ev.dtw(torch.tensor([[0.,0,9],[9,0,0]]))==0 and ev.dtw_path(torch.zeros(3,3))==[(0,0),(1,1),(2,2)]


def test_row_before_column():
    "Two free ways to the last point, of 5 points along the row and 4 along the column; the last point costs 1."
    d = torch.full((4,4), 9.); d[3,3] = 1
    for i,j in ((0,0),(1,0),(2,0),(3,1),(3,2),(1,1),(1,2),(2,3)): d[i,j] = 0
    for m,expected in ((d, 1/6), (d.T, 1/5)):
        assert ev.dtw(m)==pytest.approx(expected) and naive_dtw(m.tolist())==pytest.approx(expected)
        assert ev.dtw_batch(m[None], torch.tensor([4]), torch.tensor([4])).item()==pytest.approx(expected)


@pytest.mark.parametrize('values', (3, 10**6))      # many ties, none
def test_batch_equals_naive(values):
    g = torch.Generator().manual_seed(values)
    d = torch.randint(values, (200,7,9), generator=g).double()
    t, u = torch.randint(1, 8, (200,), generator=g), torch.randint(1, 10, (200,), generator=g)
    one = [d[b,:t[b],:u[b]] for b in range(200)]
    naive = [naive_dtw(m.tolist()) for m in one]
    assert ev.dtw_batch(d, t, u).tolist()==naive
    assert [ev.dtw(m) for m in one]==pytest.approx(naive, rel=1e-12)
    padded = d.clone()
    for b in range(200): padded[b,t[b]:] = math.nan; padded[b,:,u[b]:] = math.nan
    assert ev.dtw_batch(padded, t, u).tolist()==naive                       # what stands in the padding does not matter


# --- items

def test_items():
    P = lambda start, end, phone, path='a', who='A': Phone(path, who, start, end, phone)
    run = [P(0,.1,'k'), P(.1,.2,'a'), P(.2,.3,'t'), P(.3,.4,'SIL'), P(.4,.5,'s'), P(.5,.6,'i'), P(.62,.7,'n'), P(.75,.8,'u')]
    assert [(m.context[0]+m.phone+m.context[1], m.start, m.end) for m in ev.items_from(run)]==[('kat',0,.3), ('sin',.4,.7)]
    assert [m.phone for m in ev.items_from(run, gap=.06)]==['a','i','n'] and len(ev.items_from(run, silence='?'))==5
    assert ev.items_from(run[::-1])==ev.items_from(run)
    assert ev.items_from([P(0,.1,'k'), P(.1,.2,'a'), P(.2,.3,'t','b')])==[]          # another recording


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 80), st.sampled_from([25, 50, 100]))
def test_frames(start, length, T, rate):
    a, b = start/100, (start+length)/100
    got, inside = ev.frame_range(a, b, T, rate), [i for i in range(T) if a-1e-6 <= (i+.5)/rate <= b+1e-6]
    assert len(got) >= 1 and set(got) <= set(range(T))
    if inside: assert list(got)==inside
    else: assert len(got)==1 and (got[0]==T-1 or got[0] <= (a+b)/2*rate < got[0]+1)


@given(st.integers(0, 10**6))
def test_neighbours_share_no_frame_and_leave_none(seed):
    rng = random.Random(seed); cuts = sorted(rng.sample(range(1, 300), 8))
    phones = [Phone('a','A',s/100,e/100,str(i)) for i,(s,e) in enumerate(zip(cuts, cuts[1:]))]
    labels = ev.phone_of_frames(phones+[Phone('b','A',0,9,'x')], 'a', 75)
    for i,label in enumerate(labels):
        now = [p.phone for p in phones if p.start-1e-6 <= (i+.5)/25 < p.end-1e-6]
        assert [label]==(now or ['SIL'])


def test_table(tmp_path):
    f = tmp_path/'p.csv'
    f.write_text('path,speaker,start,end,phone,word\na.flac,Ann,0,.12,SIL,\nb/c.flac,"Bo, B",.5,.75,AE,"at"\n')
    assert ev.read_phones(str(f))==[Phone('a.flac','Ann',0,.12,'SIL'), Phone('b/c.flac','Bo, B',.5,.75,'AE','at')]


# --- the whole measure

def hand_made():
    """Items of one frame each, at these angles.  A frame centre falls into every third phone's triphone only."""
    says = {('Ann','KT'): dict(AE=(20,60), AH=(95,)), ('Ann','BT'): dict(AE=(0,10), AH=(0,)), ('Bob','KT'): dict(AE=(70,50), AH=(80,90))}
    features, phones = {}, []
    for (who,(before,after)),vowels in says.items():
        frames, path, t = [], f'{who}_{before}', 0.
        for vowel,angles in vowels.items():
            for angle in angles:
                cuts = t, t+.013, t+.027, t+.04, t+.08
                phones += [Phone(path, who, a, b, p) for a,b,p in zip(cuts, cuts[1:], (before, vowel, after, 'SIL'))]
                frames += [at(angle), at(200)]; t += .08
        features[path] = torch.tensor(frames, dtype=torch.float64)
    return features, phones


def test_abx_by_hand():
    """Within, AE against AH: Ann KT (20: right; 60: wrong) 1/2, BT (0: wrong; 10: tie) 3/4, so 5/8; Bob (70: wrong, tie; 50: right,
    right) 3/8; together 1/2. AH against AE: Bob alone (80: tie, right; 90: right, right) 1/8. In all 5/16.
    Across, AE against AH: X Bob, Ann's A (70: wrong, right; 50: right, right) 1/4; X Ann, Bob's A: 0; together 1/8; AH against AE: 0. In all 1/16."""
    r = abx(*hand_made())
    assert r==dict(within=5/16, across=1/16, n_within=4, n_across=4)
    features, phones = hand_made()
    only_ann = [p for p in phones if p.speaker=='Ann']
    r = abx(features, only_ann)
    assert (r['within'], r['n_within'], r['n_across'])==(5/8, 2, 0) and math.isnan(r['across'])


def naive_abx(features, phones, rate=25):
    "From the table to the two figures with nothing but lists and dictionaries."
    said = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))             # context, speaker, phone
    for a,b,c in zip(phones, phones[1:], phones[2:]):
        if a.path!=c.path or 'SIL' in (a.phone, b.phone, c.phone): continue
        f = features[a.path].double().tolist()
        inside = [v for i,v in enumerate(f) if a.start-1e-6 <= (i+.5)/rate <= c.end+1e-6]
        assert inside
        said[a.phone,c.phone][a.speaker][b.phone].append(inside)
    length = lambda v: math.sqrt(math.fsum(e*e for e in v))
    angle = lambda v, w: math.acos(max(-1, min(1, math.fsum(a*b for a,b in zip(v, w))/length(v)/length(w))))/math.pi
    known = {}
    def far(x, y):
        if (id(x),id(y)) not in known: known[id(x),id(y)] = naive_dtw([[angle(v, w) for w in y] for v in x])
        return known[id(x),id(y)]
    mean = lambda v: sum(v)/len(v)
    out = {}
    for mode in ('within','across'):
        errors = defaultdict(lambda: defaultdict(list))                            # pair, speaker
        for by in said.values():
            for s in by:
                for p in by[s]:
                    for q in by[s]:
                        for o in by:
                            if p==q or (o==s)!=(mode=='within') or p not in by[o]: continue
                            e = [(far(x, a) > far(x, b))+.5*(far(x, a)==far(x, b)) for x in by[o][p] for a in by[s][p] if x is not a for b in by[s][q]]
                            if e: errors[p,q][s].append(mean(e))
        out[mode] = mean([mean([mean(e) for e in who.values()]) for who in errors.values()])
        out['n_'+mode] = sum(len(e) for who in errors.values() for e in who.values())
    return out


@pytest.mark.parametrize('seed', range(3))
def test_abx_equals_naive(seed):
    features, phones = speech(seed)
    ours, naive = abx(features, phones, most=inf, voices=inf), naive_abx(features, phones)
    assert ours==pytest.approx(naive, abs=1e-12)
    assert .05 < ours['within'] < .45 and ours['across']!=ours['within']           # neither trivial nor chance


def test_perfect_and_blind():
    features, phones = speech(0, speakers=4, length=400, voice=0, noise=0, short=(.08,))
    phones = [p for p,before in zip(phones, [None]+phones) if before is None or p.phone!=before.phone]
    assert abx(features, phones)['within']==abx(features, phones)['across']==0
    r = abx({k: torch.randn(f.shape, generator=torch.Generator().manual_seed(i)) for i,(k,f) in enumerate(features.items())}, phones)
    assert abs(r['within']-.5) < .05 and abs(r['across']-.5) < .05
    assert abx({k: torch.ones_like(f) for k,f in features.items()}, phones)['across']==.5                  # nothing but ties


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(-40, 40))
def test_what_does_not_matter(seed, power):
    "Loudness, sign, the order of table and features, precision of the same values, and a recording that shares no triphone."
    features, phones = speech(seed%1000, length=60, names='aiu')
    expected, rng = abx(features, phones, seed=seed), random.Random(seed)
    assert 0 <= expected['within'] <= 1 and 0 <= expected['across'] <= 1
    for other in ({k: 2.**power*f for k,f in features.items()}, {k: -f for k,f in features.items()},
                  {k: f.double() for k,f in reversed(features.items())}, {k: torch.cat([f, 0*f], 1) for k,f in features.items()}):
        assert abx(other, phones, seed=seed)==expected
    assert abx(features, rng.sample(phones, len(phones)), seed=seed)==expected
    more = [Phone('new', 'S9', .1*i, .1*i+.1, 'xyz'[i%3]) for i in range(9)]
    assert abx(features | dict(new=torch.randn(25, 12)), more+phones, seed=seed)==expected


def test_voices_hurt_across_more():
    clean, loud = (abx(*speech(3, length=300, voice=v, noise=1.5, short=(.08,))) for v in (0, 4))
    assert abs(clean['across']-clean['within']) < .05 and loud['across']-loud['within'] > .05


def test_limits():
    items = [Item('', f'S{s}', i, i+1, p, ('k','t')) for s in range(9) for p in 'ai' for i in range(20)]
    cells = lambda **k: ev.cells_from(items, across=True, **k)
    assert len(cells())==9*2*5 and all(len(c.a)==len(c.b)==len(c.x)==10 for c in cells())
    assert len(cells(voices=inf))==9*2*8 and all(len(c.a)==20 for c in cells(most=inf))
    assert cells()==cells() and cells(seed=1)!=cells()
    for c in cells(most=3)+ev.cells_from(items, across=False, most=3):
        for ids,phone,who in ((c.a, c.phones[0], c.speaker), (c.b, c.phones[1], c.speaker), (c.x, c.phones[0], c.other)):
            assert len(set(ids))==3 and all((items[i].phone, items[i].speaker)==(phone, who) for i in ids)
    others = defaultdict(set)
    for c in cells(): others[c.speaker,c.phones].add(c.other)
    assert all(len(o)==5 and s not in o for (s,_),o in others.items())
    assert len(set().union(*others.values()))==9                        # not the same five for everybody
    assert {(c.speaker,c.other) for c in ev.cells_from(items, across=False)}=={(f'S{s}',)*2 for s in range(9)}


def test_seed():
    features, phones = speech(5, speakers=4, length=300, names='ai')
    one, other = (abx(features, phones, most=2, voices=1, seed=s) for s in (0, 1))
    assert one==abx(features, phones, most=2, voices=1, seed=0)!=other


# --- means and intervals

def test_votes():
    "Two votes count like two people with the same answers, as A's voice and as X's."
    cell = lambda who, other, pair: ev.Cell(pair, ('k','t'), who, other, [], [], [])
    one = [cell('A','B','ai'), cell('B','A','ai'), cell('A','C','ai'), cell('C','A','ai'), cell('A','B','ia')]
    e = [.1, .3, .8, .5, .2]
    assert ev.nested_mean(one, e)==pytest.approx((((.1+.8)/2+.3+.5)/3+.2)/2)
    assert ev.nested_mean(one, e, dict(A=1, B=2, C=1))==pytest.approx((((2*.1+.8)/3+2*.3+.5)/4+.2)/2)
    assert ev.nested_mean(one, e, dict(A=1, C=2))==pytest.approx((.8+2*.5)/3)        # B is out, and the pair with it
    assert math.isnan(ev.nested_mean(one, e, dict(B=3))) and math.isnan(ev.nested_mean([], []))


def test_interval():
    features, phones = speech(1, speakers=6, length=100, names='aiu')
    r = abx(features, phones, draws=60)
    for name in ('within','across'):
        low, high = r[f'{name}_95']
        assert low < r[name] < high and high-low < .5
    assert r==abx(features, phones, draws=60) and abx(features, phones).items() <= r.items()
    same = [ev.Cell(('a','i'), ('k','t'), s, s, [], [], []) for s in 'ABC']
    assert ev.speaker_bootstrap(same, [.25]*3)==(.25, .25)
    assert all(map(math.isnan, ev.speaker_bootstrap([], [])))


# --- PNMI

labels = st.lists(st.tuples(st.integers(0, 5), st.sampled_from('abcd')), min_size=2, max_size=60).filter(lambda v: len({p for _,p in v}) > 1)


@given(labels)
def test_pnmi_equals_scikit_learn(both):
    tokens, phones = map(list, zip(*both)); h = mutual_info_score(phones, phones)
    got = ev.pnmi(tokens, phones)
    assert got==pytest.approx(mutual_info_score(tokens, phones)/h, abs=1e-9)
    assert ev.pnmi([f'x{-t}' for t in tokens], phones)==pytest.approx(got, abs=1e-9)                     # names do not matter
    assert ev.pnmi([(t, i%2) for i,t in enumerate(tokens)], phones) >= got-1e-9                          # finer tokens never tell less
    assert ev.pnmi(phones, phones)==pytest.approx(1)


def test_pnmi_by_hand():
    assert ev.pnmi(torch.tensor([0,0,1,1]), ['a','b','a','b'])==pytest.approx(0, abs=1e-12)
    assert ev.pnmi(torch.tensor([0,0,0,1]), torch.tensor([5,5,6,6]))==pytest.approx(1-.75*(math.log2(3)-2/3))


# --- bad input

@pytest.mark.parametrize('text,reason', [
    (None, 'no such file'), ('', 'needs the columns'), ('path,start\na,1\n', 'needs the columns'),
    ('path,speaker,start,end,phone\na,A,x,1,k\n', 'line 2: a time is not a number'),
    ('path,speaker,start,end,phone\na,A,0,1,k\na,A\n', 'line 3: a time is not a number'),
    ('path,speaker,start,end,phone\na,A,0,1,k\na,A,2,1,t\n', 'line 3: t is from 2.0 to 1.0'),
    ('path,speaker,start,end,phone\na,A,0,nan,k\n', 'line 2: k is from')])
def test_bad_tables(text, reason, tmp_path):
    f = tmp_path/'p.csv'
    if text is not None: f.write_text(text)
    with pytest.raises(AudioError, match=reason) as e: ev.read_phones(f)
    assert len(str(e.value).splitlines())==1 and str(f) in str(e.value)


@pytest.mark.parametrize('change,reason', [
    (lambda f: {}, r'0_0.flac: there are no features of this recording \(6 lack'),
    (lambda f: f | {'1_0.flac': f['1_0.flac'][None]}, r'1_0.flac: features must be \(T,D\)'),
    (lambda f: f | {'1_0.flac': f['1_0.flac'][:0]}, r'1_0.flac: features must be \(T,D\)'),
    (lambda f: f | {'1_0.flac': f['1_0.flac']*math.nan}, '1_0.flac: features are NaN or infinite'),
    (lambda f: {k: v[::2] for k,v in f.items()}, '0_0.flac: .* is the rate right')])
def test_bad_features(change, reason):
    features, phones = speech(0)
    with pytest.raises(AudioError, match=reason) as e: abx(change(features), phones)
    assert len(str(e.value).splitlines())==1


def test_too_little():
    features, phones = speech(0)
    for few in ([], phones[:5]):
        with pytest.raises(AudioError, match=f'among {len(few)} phones no two triphones'): abx(features, few)
    with pytest.raises(AudioError, match='3 tokens and 2 phones'): ev.pnmi([1,2,3], 'ab')
    for phones in ('aaa', ''):
        with pytest.raises(AudioError, match='two different phones'): ev.pnmi([1]*len(phones), phones)
