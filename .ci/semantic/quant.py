from lib import *
from audiolm_edu.evaluate import *
from audiolm_edu.vq import kmeans, nearest
ck=sys.argv[1]; layers=[int(x) for x in sys.argv[2].split(',')]; Ks=[int(x) for x in sys.argv[3].split(',')]
if ck=='speech': enc=SemanticTokenizer.from_pretrained('speech').encoder
else:
    d=torch.load(ck); A=d['args']; enc=SemanticEncoder(SemanticConfig(width=A['width'],layers=A['layers'],kernel=A['kernel'])); enc.load_state_dict(d['enc'])
enc.eval()
ph=read_phones('.ci/abx/phones.csv'); rel={IDX[i]['rel']:i for i in HELD}; paths=sorted({p.path for p in ph})
g=torch.Generator().manual_seed(0)
tr=[TRAIN[j] for j in torch.randperm(len(TRAIN),generator=g)]
tr=[i for i in tr if 'extra' not in IDX[i]['path'] and 'festvox' not in IDX[i]['path']][:900]
with torch.no_grad():
    X=[enc(mel(i)[None]) for i in tr]; E_={p:enc(mel(rel[p])[None]) for p in paths}
pr=lambda s:'%.1f/%.1f'%(100*s['within'],100*s['across'])
for l in layers:
    x=torch.cat([h[l-1][0] for h in X]); print('frames',len(x))
    e={p:h[l-1][0] for p,h in E_.items()}
    mu,sd=x.mean(0),x.std(0)
    modes={'zscore':lambda v:(v-mu)/sd,'none':lambda v:v}
    Tc=torch.cov(((x-mu)/sd).T); ll,V=torch.linalg.eigh(Tc)
    modes['z+unit']=lambda v:F.normalize((v-mu)/sd,dim=-1)
    modes['z+pca64+unit']=lambda v:F.normalize(((v-mu)/sd)@V[:,-64:],dim=-1)
    for m in (sys.argv[4].split(',') if len(sys.argv)>4 else modes):
        f=modes[m]; ef={p:f(v) for p,v in e.items()}; print(l,m,'feat',pr(abx(ef,ph,most=6)),flush=True)
        xf=f(x); xf=xf[torch.randperm(len(xf),generator=g)[:50000]]
        for K in Ks:
            b=kmeans(xf,K,12); print('   K',K,pr(abx({p:b[nearest(v,b)] for p,v in ef.items()},ph,most=6)),flush=True)
