"Write README.md from nbs/index.ipynb: its prose, the code that a reader would type, and the picture that the last cell drew."
import base64
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINK = '[Open the tour in Colab]'   # the notebook itself asks no other server for a picture
BADGE = '[![Open the tour in Colab](https://colab.research.google.com/assets/colab-badge.svg)]'


def readme(cells:list) -> tuple[str,bytes]: # text, PNG
    "Cells marked `export` are the library's; of a cell marked `hide-input` only the picture is shown."
    text, picture = [], b''
    for c in cells:
        s = ''.join(c['source'])
        if c['cell_type']=='markdown': text.append(s)
        elif s.startswith('#| hide-input'):
            picture = next(base64.b64decode(o['data']['image/png']) for o in c['outputs'] if 'image/png' in o.get('data', {}))
            text.append('![Sound, semantic tokens and acoustic tokens of a continuation](nbs/continuation.png)')
        elif not s.startswith('#|'): text.append(f'```python\n{s}\n```')
    title, badge = text[0].splitlines()[0], text[1:]
    return '\n\n'.join([title, *badge]).replace(LINK, BADGE)+'\n', picture


if __name__=='__main__':
    text, picture = readme(json.loads((ROOT/'nbs/index.ipynb').read_text(encoding='utf-8'))['cells'])
    (ROOT/'README.md').write_text(text, encoding='utf-8'); (ROOT/'nbs/continuation.png').write_bytes(picture)
    sys.stdout.write(f'README.md: {len(text.splitlines())} lines\n')
