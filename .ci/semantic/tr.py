import argparse
ap=argparse.ArgumentParser(); ap.add_argument('mode'); ap.add_argument('out'); ap.add_argument('--steps',type=int,default=1500); ap.add_argument('--lr',type=float,default=5e-4)
ap.add_argument('--init',default='speech'); ap.add_argument('--labels',default=''); ap.add_argument('--K',type=int,default=512); ap.add_argument('--width',type=int,default=192); ap.add_argument('--layers',type=int,default=6)
ap.add_argument('--every',type=int,default=250); ap.add_argument('--B',type=int,default=16); ap.add_argument('--share',type=float,default=.4); ap.add_argument('--seed',type=int,default=0); ap.add_argument('--kernel',type=int,default=9)
a=ap.parse_args()
from lib import *
from audiolm_edu.evaluate import *
from audiolm_edu.vq import kmeans, nearest
from torch import nn
torch.manual_seed(a.seed); rng=np.random.default_rng(a.seed)
T=100 # frames of 25 Hz per crop
soft=a.mode=='soft'
lab=None
if a.labels:
    lab={}
    if soft:
        for f in a.labels.split(','): lab.update(torch.load(f))
    else: lab=torch.load(a.labels)
use=[i for i in TRAIN if IDX[i]['n']>=4*30 and (not soft or i in lab)]
# sampling: English first; weight by duration^.5-ish per speaker, extras down
w=np.array([IDX[i]['n']*(.35 if 'extra' in IDX[i]['path'] or 'festvox' in IDX[i]['path'] else 1.) for i in use],float); w/=w.sum()
def crop_ids(B):
    out=[]
    for j in rng.choice(len(use),B,p=w):
        i=use[j]; n=IDX[i]['n']//4; out.append((i,int(rng.integers(0,max(1,n-T+1)))))
    return out
def get(ids,lab=None):
    M=torch.zeros(len(ids),4*T,64); V=torch.zeros(len(ids),T,dtype=torch.bool); L=torch.zeros(len(ids),T,dtype=torch.long)
    if soft: SV=torch.zeros(len(ids),T,16); SJ=torch.zeros(len(ids),T,16,dtype=torch.long)
    for b,(i,s) in enumerate(ids):
        m=mel(i)[4*s:4*s+4*T]; n=len(m)//4
        reps=math.ceil(T/n); M[b]=m[:4*n].repeat(reps,1)[:4*T]; V[b,:n]=True
        if soft: v,j=lab[i]; SV[b]=v[s:s+T].float().repeat(reps,1)[:T]; SJ[b]=j[s:s+T].long().repeat(reps,1)[:T]; continue
        if lab is not None: l=lab[i][s:s+T]; L[b]=l.repeat(reps)[:T]
    return M,V,((SV,SJ) if soft else L)
top=float(hz_to_mel(SR/2)); cent=torch.tensor(mel_to_hz(torch.linspace(0,top,66)[1:-1].numpy()))
def aug(M):
    B=len(M); f=torch.empty(B).uniform_(.8,1.25)
    where=torch.tensor(np.array(hz_to_mel((cent[None]/f[:,None]).numpy())))/top*65-1
    where=where.float().clamp(0,62.999); lo=where.long(); p=(where-lo)[:,None]
    g=lambda j: M.gather(2,j[:,None].expand(-1,M.shape[1],-1))
    x=g(lo)*(1-p)+g(lo+1)*p
    # blur along frequency (hides the pitch)
    s=torch.rand(B,1,1)*.5; x=x*(1-s)+s*.5*(torch.roll(x,1,2)+torch.roll(x,-1,2))
    # stationary noise
    base=x.logsumexp(1,keepdim=True)-math.log(M.shape[1]); k=torch.arange(64)
    tilt=sum(torch.randn(B,1,1)*torch.cos(math.pi*j*(k+.5)/64) for j in (1,2,3))
    nz=base.mean(2,keepdim=True)+tilt-torch.empty(B,1,1).uniform_(1.5,7)
    return torch.logaddexp(x,nz+.3*torch.randn_like(x))
enc_c=SemanticConfig(width=a.width,layers=a.layers,kernel=a.kernel)
enc=SemanticEncoder(enc_c)
if a.init=='speech': enc.load_state_dict(SemanticTokenizer.from_pretrained('speech').encoder.state_dict())
elif a.init: enc.load_state_dict(torch.load(a.init)['enc'])
D=a.width
class Spin(nn.Module):
    def __init__(s):
        super().__init__(); s.enc=enc; s.proj=nn.Linear(D,128); s.book=nn.Parameter(torch.randn(a.K,128))
    def z(s,h):
        h=s.proj(h).float(); h=h-h.mean(1,keepdim=True); return F.normalize(h,dim=-1)
    def loss(s,M,V,L):
        B=len(M); m=torch.cat([aug(M),aug(M)]); mask=torch.cat([span_mask(B,T,a.share),span_mask(B,T,a.share)])
        C=F.normalize(s.book,dim=-1)
        z=s.z(s.enc(m,mask)[-1])
        with torch.no_grad():
            zc=s.z(s.enc(m)[-1]); q=sinkhorn((zc@C.T)[torch.cat([V,V])]/.05)
        lp=F.log_softmax(z@C.T/.1,-1); VV=torch.cat([V,V])
        qq=torch.zeros_like(lp); qq[VV]=q; qq=torch.cat([qq[B:],qq[:B]])
        ce=-(qq*lp).sum(-1); hid=ce[VV&mask].mean(); seen=ce[VV&~mask].mean()
        qm=q.mean(0); return hid+seen, dict(hid=hid.item(),seen=seen.item(),ent=-(q*q.clamp(min=1e-9).log()).sum(1).mean().item())
def sinkhorn(x,n=3):
    Q=torch.exp(x-x.max()); Q=Q/Q.sum()
    for _ in range(n):
        Q=Q/(Q.sum(0,keepdim=True)+1e-12)/Q.shape[1]; Q=Q/(Q.sum(1,keepdim=True)+1e-12)/Q.shape[0]
    return Q*Q.shape[0]
class Hubert(nn.Module):
    def __init__(s): super().__init__(); s.enc=enc; s.head=nn.Linear(D,a.K)
    def loss(s,M,V,L):
        mask=span_mask(len(M),T,a.share); lp=F.log_softmax(s.head(s.enc(aug(M),mask)[-1]).float(),-1)
        ce=F.nll_loss(lp.flatten(0,1),L.flatten(),reduction='none').view(L.shape)
        hid=ce[V&mask].mean(); seen=ce[V&~mask].mean()
        hit=(lp.argmax(-1)==L)[V&mask].float().mean().item()
        return hid+a_seen*seen, dict(hid=hid.item(),seen=seen.item(),hit=hit)
a_seen=1.
class Soft(nn.Module):
    def __init__(s): super().__init__(); s.enc=enc; s.head=nn.Linear(D,a.K)
    def loss(s,M,V,L):
        v,j=L; mask=span_mask(len(M),T,a.share); lp=F.log_softmax(s.head(s.enc(aug(M),mask)[-1]).float(),-1)
        ce=-(v*lp.gather(-1,j)).sum(-1); hid=ce[V&mask].mean(); seen=ce[V&~mask].mean()
        hit=(lp.argmax(-1)==j[...,0])[V&mask].float().mean().item(); hs=(lp.argmax(-1)==j[...,0])[V&~mask].float().mean().item()
        return .5*hid+seen, dict(hid=hid.item(),seen=seen.item(),hit=hit,hits=hs)
model={'spin':Spin,'hubert':Hubert,'soft':Soft}[a.mode]()
import copy
ph=read_phones('.ci/abx/phones.csv'); rel={IDX[i]['rel']:i for i in HELD}; paths=sorted({p.path for p in ph})
@torch.no_grad()
def evaluate_(e,full=False):
    e.eval(); L=[e(mel(rel[p])[None]) for p in paths]; r={}
    for l in range(a.layers):
        if l<3 and not full: continue
        s=abx({p:x[l][0] for p,x in zip(paths,L)},ph,most=6); r[l+1]='%.1f/%.1f'%(100*s['within'],100*s['across'])
    if hasattr(ema,'head'):
        q=[ema.head(x[-1][0]) for x in L]; s=abx({p:F.softmax(y,-1).sqrt() for p,y in zip(paths,q)},ph,most=6); r['p']='%.1f/%.1f'%(100*s['within'],100*s['across'])
    e.train(); return r
opt=torch.optim.AdamW(model.parameters(),lr=a.lr,betas=(.9,.98),weight_decay=.01)
ema=copy.deepcopy(model); t0=time.time(); acc={}; model.train()

for step in range(a.steps+1):
    for gr in opt.param_groups: gr['lr']=a.lr*min(1,(step+1)/100)*(.02+.98*.5*(1+math.cos(math.pi*min(1,step/a.steps))))
    M,V,L=get(crop_ids(a.B),lab)
    with torch.autocast('cpu',dtype=torch.bfloat16): loss,info=model.loss(M,V,L)
    opt.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(model.parameters(),1.); opt.step()
    with torch.no_grad():
        d=min(.995,(step+1)/(step+10))
        for p,q in zip(ema.parameters(),model.parameters()): p.lerp_(q,1-d)
    for k,v in info.items(): acc[k]=acc.get(k,0)*.95+.05*v
    if step and step%a.every==0 or step==a.steps:
        print(step,round(time.time()-t0),{k:round(v,3) for k,v in acc.items()},evaluate_(ema.enc),flush=True)
        torch.save(dict(enc=ema.enc.state_dict(),model=ema.state_dict(),args=vars(a)),a.out+'.tmp'); os.replace(a.out+'.tmp',a.out)
