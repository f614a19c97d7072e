import torch,numpy as np,json
torch.set_num_threads(1)
from audiolm_edu.all import *
from audiolm_edu.semantic import pad_to_token
S=[Waveforms('work/packed'),Waveforms('work/packed_x')]
out=open('work/mels.f16','wb'); idx=[]; pos=0
for s,st in enumerate(S):
    for i in range(len(st)):
        m=log_mel(pad_to_token(st[i])[None])[0]
        if len(m)%4: raise SystemExit(m.shape)
        out.write(m.half().numpy().tobytes()); c=st.clips[i]
        idx.append(dict(start=pos,n=len(m),speaker=c.speaker,path=str(c.path),held=held_out(c.speaker))); pos+=len(m)
json.dump(idx,open('work/mels.json','w')); print(pos/360000, m.shape)
