"decode extra packages to wav, pack, then mels of everything"
import subprocess, sys, csv
from pathlib import Path
root=Path('work/deb'); out=Path('work/extra'); out.mkdir(exist_ok=True)
who={'en':'ast_allison','es':'ast_allison','fr':'ast_june','it':'ast_carlo','ru':'ast_maxim'}
rows=[]
import soundfile as sf
for l in who:
    d=out/l; d.mkdir(exist_ok=True)
    fs=[f for f in sorted((root/f'x_asterisk-core-sounds-{l}-g722').rglob('*.g722')) if f.stat().st_size>16000*1.5/2 and 'silence' not in str(f)]
    for i,f in enumerate(fs):
        o=d/f'{f.parent.name}_{f.stem}.wav'
        if not o.exists():
            subprocess.run(['ffmpeg','-loglevel','error','-y','-threads','1','-f','g722','-i',str(f),'-ar','16000','-ac','1',str(o)],check=True)
        rows.append((f'{l}/{o.name}',who[l],sf.info(o).duration))
for f in sorted((root/'x_festvox-ru').rglob('*.wav')):
    rows.append((str(f),'fv_ru',sf.info(f).duration))
print(len(rows),sum(r[2] for r in rows)/3600)
with open(out/'manifest.csv','w') as f:
    w=csv.writer(f); w.writerow(['path','speaker','seconds']); w.writerows(rows)
from audiolm_edu.all import *
pack([c for c in read_folder(out)],'work/packed_x')
