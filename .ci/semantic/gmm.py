from lib import *
from audiolm_edu.evaluate import *
torch.set_num_threads(1)
def delta(c,n=2):
    w=torch.arange(-n,n+1).float(); w=w/(w**2).sum()
    return F.pad(c.T[None],(n,n),mode='replicate')[0].unfold(1,2*n+1,1).matmul(w).T
DCT=torch.cos(math.pi*torch.arange(13)[:,None]*(torch.arange(64)+.5)/64)
def ceps(m,n=13):
    c=m@DCT.T; d=delta(c); return torch.cat([c,d,delta(d)],-1)
def cmvn(c): return (c-c.mean(0))/c.std(0).clamp(min=1e-3)
class GMM:
    def __init__(s,K,D): s.K,s.D=K,D
    def setp(s,w,mu,cov):
        s.w,s.mu=w,mu; L=torch.linalg.cholesky(cov); I=torch.eye(s.D).expand(s.K,-1,-1)
        s.A=torch.linalg.solve_triangular(L,I,upper=False) # (K,D,D): y=A(x-mu)
        s.ld=s.A.diagonal(dim1=1,dim2=2).log().sum(1)
        s.Af=s.A.reshape(-1,s.D).T.contiguous(); s.Am=torch.einsum('kij,kj->ki',s.A,s.mu).flatten()
    def ll(s,x): # (N,K)
        y=(x@s.Af-s.Am).view(len(x),s.K,s.D); return -.5*(y*y).sum(-1)+s.ld+s.w.log()
    def post(s,x,chunk=2000,scale=1.): return torch.cat([F.softmax(s.ll(x[i:i+chunk])*scale,-1) for i in range(0,len(x),chunk)])
    def fit(s,x,iters=10,prior=10.):
        g=torch.Generator().manual_seed(0)
        C=torch.cov(x.T); from audiolm_edu.vq import kmeans,nearest
        b=kmeans(x[torch.randperm(len(x),generator=g)[:40000]],s.K,8); idx=nearest(x,b)
        for it in range(iters+1):
            n=torch.zeros(s.K); sx=torch.zeros(s.K,s.D); sxx=torch.zeros(s.K,s.D,s.D); tot=0
            for i in range(0,len(x),2000):
                xb=x[i:i+2000]
                if it==0: r=F.one_hot(idx[i:i+2000],s.K).float()
                else:
                    l=s.ll(xb); tot+=l.logsumexp(-1).sum().item(); r=F.softmax(l,-1)
                v,j=r.topk(4,-1); v=torch.where(v>.01,v,0.); r=torch.zeros_like(r).scatter(1,j,v); n+=r.sum(0); sx+=r.T@xb
                for q in range(4):
                    m=v[:,q]>0; o=(xb[m]*v[m,q,None]).unsqueeze(2)*xb[m].unsqueeze(1); sxx.index_add_(0,j[m,q],o)
            mu=sx/n.clamp(min=1e-3)[:,None]
            cov=(sxx-n[:,None,None]*mu[:,:,None]*mu[:,None,:]+prior*C*.3)/(n+prior)[:,None,None]
            cov=.5*(cov+cov.mT)+.02*torch.diag(C.diagonal())
            try: s.setp((n+1)/(n+1).sum(),mu,cov)
            except Exception as e: cov=cov+.1*torch.diag(C.diagonal()); s.setp((n+1)/(n+1).sum(),mu,cov)
            print(it,tot/len(x),flush=True)
        return s
if __name__=='__main__':
    K=int(sys.argv[1]); g=torch.Generator().manual_seed(0)
    ph=read_phones('.ci/abx/phones.csv'); rel={IDX[i]['rel']:i for i in HELD}; paths=sorted({p.path for p in ph})
    pr=lambda fs:(lambda s:'%.1f/%.1f'%(100*s['within'],100*s['across']))(abx(dict(zip(paths,fs)),ph,most=6))
    E_=[cmvn(ceps(mel(rel[p]))) for p in paths]
    p4=lambda x:x.unflatten(0,(-1,4)).mean(1)
    print('cmvn mfcc39 mean25',pr([p4(e) for e in E_]),flush=True)
    tr=[i for i in TRAIN if 'extra' not in IDX[i]['path'] and 'festvox' not in IDX[i]['path'] and IDX[i]['n']>150]
    tr=[tr[j] for j in torch.randperm(len(tr),generator=g)[:900]]
    X=torch.cat([cmvn(ceps(mel(i)))[torch.rand(IDX[i]['n'],generator=g)<.6] for i in tr]); X=X[torch.randperm(len(X),generator=g)[:int(sys.argv[3])]]; print(X.shape)
    t=time.time(); G=GMM(K,39).fit(X,int(sys.argv[2])); print(time.time()-t)
    for sc in (1.,.3,.1):
        P=[p4(G.post(e,scale=sc)) for e in E_]
        print('post',sc,pr([x.sqrt() for x in P]),'lin',pr(P),flush=True)
    torch.save(dict(w=G.w,mu=G.mu,A=G.A),f'gmm{K}.pt')
