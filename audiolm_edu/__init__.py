"""```python
from audiolm_edu.audio import *
from audiolm_edu.corpus import *
from audiolm_edu.vq import *
from audiolm_edu.codec import *
from audiolm_edu.training import *
from audiolm_edu.codec_training import *
from audiolm_edu.soundstream import *
from audiolm_edu.semantic import *
from audiolm_edu.semantic_training import *
from audiolm_edu.tokens import *
```

```python
from audiolm_edu.transformer import *   # type: ignore[assignment]
from audiolm_edu.sampling import *
from audiolm_edu.semantic_stage import *
from audiolm_edu.coarse_stage import *
from audiolm_edu.fine_stage import *
from audiolm_edu.audiolm import *
from audiolm_edu.evaluate import *
from audiolm_edu.hub import *
from audiolm_edu.adaptors import *
from audiolm_edu.semantic_decoder import *
from audiolm_edu.speakers import *
from audiolm_edu.judgements import *
from audiolm_edu.listening import *
```

```python
from audiolm_edu.attacks import *
from audiolm_edu.detector import *
from audiolm_edu.watermark import *
from audiolm_edu.piano import *
from audiolm_edu.events import *
from audiolm_edu.piano_models import *
from audiolm_edu.widgets import *
from audiolm_edu.studio import Recorder, Studio
from audiolm_edu.playground import DetectorPlayground
```

```python
__all__ = [name for name in globals() if not name.startswith('_')]  # hand on what was imported
```"""

__version__ = "0.1.0"
