"per speaker warp by likelihood, refit"
from gmm import *
torch.set_num_threads(1)
from audiolm_edu.semantic import warp
def load(path):
    d=torch.load(path); G=GMM(len(d['w']),39); G.w,G.mu,G.A=d['w'],d['mu'],d['A']; G.ld=G.A.diagonal(dim1=1,dim2=2).log().sum(1); G.Af=G.A.reshape(-1,39).T.contiguous(); G.Am=torch.einsum('kij,kj->ki',G.A,G.mu).flatten(); return G
FS=(.84,.89,.94,1.,1.06,1.12,1.18)
if __name__=='__main__':
    G=load('gmm256.pt'); g=torch.Generator().manual_seed(0)
    by={}
    for i in TRAIN: by.setdefault(IDX[i]['spk'],[]).append(i)
    fac={}; t=time.time()
    for s,v in by.items():
        v=[v[j] for j in torch.randperm(len(v),generator=g)[:6]]; sc=torch.zeros(len(FS)); 
        for i in v:
            m=mel(i)[None,:600]
            for k,f in enumerate(FS):
                c=cmvn(ceps(warp(m,f)[0]))[::4 if len(v)>1 else 2]; sc[k]+=G.ll(c).logsumexp(-1).sum()
        fac[s]=FS[int(sc.argmax())]
    print(time.time()-t, np.unique(list(fac.values()),return_counts=True)); json.dump(fac,open('vtln.json','w'))
    tr=[i for i in TRAIN if 'festvox' not in IDX[i]['path'] and IDX[i]['n']>150]
    eng=[i for i in tr if 'extra' not in IDX[i]['path']]; ext=[i for i in tr if 'extra' in IDX[i]['path']]
    tr=[eng[j] for j in torch.randperm(len(eng),generator=g)[:1300]]+[ext[j] for j in torch.randperm(len(ext),generator=g)[:60]]
    X=torch.cat([cmvn(ceps(warp(mel(i)[None],fac[IDX[i]['spk']])[0]))[torch.rand(IDX[i]['n'],generator=g)<.5] for i in tr]); X=X[torch.randperm(len(X),generator=g)[:220000]]; print(X.shape,flush=True)
    G=GMM(int(sys.argv[1]),39).fit(X,int(sys.argv[2])); torch.save(dict(w=G.w,mu=G.mu,A=G.A),sys.argv[3])
