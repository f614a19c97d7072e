"soft labels from the VTLN GMM: part P of 2"
from gmm import *
from vtln import load
torch.set_num_threads(1)
from audiolm_edu.semantic import warp
G=load(sys.argv[1]); scale=float(sys.argv[2]); part=int(sys.argv[3]); out=sys.argv[4]; fac=json.load(open('vtln.json'))
R={}; t=time.time()
todo=[i for i in TRAIN if 'festvox' not in IDX[i]['path']]
todo=todo[part::2]
for n,i in enumerate(todo):
    f=fac[IDX[i]['spk']]; m=mel(i)[None]; acc=0
    for r in (.955,1.045):
        c=cmvn(ceps(warp(m,f*r)[0]))
        c=c.unflatten(0,(-1,4))[:,1::2].flatten(0,1)
        acc=acc+F.softmax(G.ll(c)*scale,-1).unflatten(0,(-1,2)).mean(1)
    v,j=(acc/2).topk(16,-1); R[i]=((v/v.sum(-1,keepdim=True)).half(),j.short())
    if n%500==0: print(n,len(todo),time.time()-t,flush=True)
torch.save(R,out)
